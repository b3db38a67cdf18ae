"""Where a message of a mixed fleet stands: by its stamp, or by Celery's own count of retries.

A worker that protects stamps a retry and counts it. One that does not hands on the stamp it got,
or none; what it always counts is the header `retries`.
"""

from __future__ import annotations

from dataclasses import replace

from taskyard.wire.headers import MOST_RETRIES, Stamp

__all__ = ["effective_stamp"]


def effective_stamp(stamp: Stamp | None, retries: object) -> Stamp | None:
    """The stamp with the retries that it does not know of; None where nothing is known."""
    # A bool is an int to Python and none to Redis; more than a stamp may hold fits no ledger.
    count = retries if type(retries) is int and 0 < retries < MOST_RETRIES else 0
    if stamp is None:
        return Stamp(0, 0, count) if count else None
    return replace(stamp, seq=max(stamp.seq, count))
