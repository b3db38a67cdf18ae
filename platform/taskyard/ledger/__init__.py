"""The ledger: every job's history and present state in Postgres, fed by the lifecycle stream."""

from taskyard.ledger.entries import Entry
from taskyard.ledger.read import history, job
from taskyard.ledger.write import write

__all__ = ["Entry", "history", "job", "write"]
