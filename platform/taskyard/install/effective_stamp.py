"""Find the position of a message if some workers protect its job and others do not.

A protecting worker stamps a retry and counts it. Another worker passes on the stamp that it got, or
none, but always counts in the header `retries`.
"""

from __future__ import annotations

from dataclasses import replace

from taskyard.wire.stamp_header import MOST_RETRIES, Stamp

__all__ = ["effective_stamp"]


def effective_stamp(stamp: Stamp | None, retries: object) -> Stamp | None:
    """Return the message's stamp, with the retries that it does not include.

    None if the message has neither a stamp nor retries.
    """
    # A bool is an int in Python but not in Redis; a larger number than a stamp may hold fits no
    # ledger.
    count = retries if type(retries) is int and 0 < retries < MOST_RETRIES else 0
    if stamp is None:
        return Stamp(0, 0, count) if count else None
    return replace(stamp, seq=max(stamp.seq, count))
