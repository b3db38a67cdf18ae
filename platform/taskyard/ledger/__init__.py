"""The ledger: every job's history and present state in Postgres, fed by the lifecycle stream."""

from taskyard.ledger.entries import Entry
from taskyard.ledger.read import (
    SEARCH_LIMIT,
    Wanted,
    history,
    ids_starting_with,
    job,
    messages_of,
    newest,
    starts_after_replay,
)
from taskyard.ledger.waiting_jobs import waiting_in
from taskyard.ledger.write import write, write_present

__all__ = [
    "SEARCH_LIMIT",
    "Entry",
    "Wanted",
    "history",
    "ids_starting_with",
    "job",
    "messages_of",
    "newest",
    "starts_after_replay",
    "waiting_in",
    "write",
    "write_present",
]
