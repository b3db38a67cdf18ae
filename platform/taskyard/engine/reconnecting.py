"""How long a consumer waits before it connects again."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST_S", "Reconnecting"]

_FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0
# A connection that held this long was a good one.
_CALM_S: Final = 10.0


class Reconnecting:
    """At once after a loss, then 0.1 s and twice as long up to 2 s while losses follow each other.

    A server that refuses (read-only, full) accepts every connection: without a wait the worker
    would connect and be refused dozens of times a second.
    """

    def __init__(self) -> None:
        self._lost_at_s = float("-inf")
        self._wait_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long to wait after a loss at `now_s`, in seconds on the monotonic clock."""
        if now_s - self._lost_at_s > _CALM_S:
            self._wait_s = 0.0
        else:
            self._wait_s = min(max(2 * self._wait_s, _FIRST_S), LONGEST_S)
        self._lost_at_s = now_s
        return self._wait_s
