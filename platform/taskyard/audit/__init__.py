"""The audit log: rows of what operators did, requested and were refused.

The database refuses changes of these rows. A chain of seals shows a change that the owner of the
database made all the same: `Sealer` extends the chain, `verify` checks it.
"""

from taskyard.audit.append_rows import Entry, Outcome, answer, refused, write, write_many
from taskyard.audit.archive import archives_in, ended_at
from taskyard.audit.archiver import Archiver
from taskyard.audit.exported_heads import Head, HeadFile, exported, given_heads
from taskyard.audit.read import is_requested, rows_of
from taskyard.audit.sealer import EVERY_S, Sealer, Unsealed, unsealed
from taskyard.audit.unverified_denials import count_unverified, list_unverified
from taskyard.audit.verify import verify
from taskyard.audit.verify_findings import MEANINGS, Finding, Kind, Report

__all__ = [
    "EVERY_S",
    "MEANINGS",
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
    "archives_in",
    "count_unverified",
    "ended_at",
    "exported",
    "given_heads",
    "is_requested",
    "list_unverified",
    "refused",
    "rows_of",
    "unsealed",
    "verify",
    "write",
    "write_many",
]
