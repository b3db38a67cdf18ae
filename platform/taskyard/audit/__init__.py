"""The audit log: rows of what operators did, requested and were refused.

The database refuses changes of these rows. A chain of seals shows a change that the owner of the
database made all the same: `Sealer` extends the chain, `verify` checks it.
"""

from taskyard.audit.append_rows import (
    Answer,
    Entry,
    Outcome,
    answer,
    answer_many,
    refused,
    write,
    write_many,
)
from taskyard.audit.archive import archives_in, ended_at
from taskyard.audit.archiver import Archiver
from taskyard.audit.exported_heads import Head, HeadFile, exported, given_heads
from taskyard.audit.read import requested_among, rows_of
from taskyard.audit.sealer import EVERY_S, Sealer, Unsealed, unsealed
from taskyard.audit.unverified_denials import count_unverified, list_unverified
from taskyard.audit.verify import verify
from taskyard.audit.verify_findings import MEANINGS, Finding, Kind, Report

__all__ = [
    "EVERY_S",
    "MEANINGS",
    "Answer",
    "Archiver",
    "Entry",
    "Finding",
    "Head",
    "HeadFile",
    "Kind",
    "Outcome",
    "Report",
    "Sealer",
    "Unsealed",
    "answer",
    "answer_many",
    "archives_in",
    "count_unverified",
    "ended_at",
    "exported",
    "given_heads",
    "list_unverified",
    "refused",
    "requested_among",
    "rows_of",
    "unsealed",
    "verify",
    "write",
    "write_many",
]
