"""The audit log: what operators did, asked for and were refused, in rows that cannot be changed."""

from taskyard.audit.log import Entry, Outcome, answer, refused, rows_of, write

__all__ = ["Entry", "Outcome", "answer", "refused", "rows_of", "write"]
