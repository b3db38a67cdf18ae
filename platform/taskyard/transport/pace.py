"""How quickly jobs end: whether a worker may hold more of them than its processes run."""

from __future__ import annotations

from typing import Final

__all__ = ["BURST", "QUICK_S", "AckRate"]

# How many times their prefetch count our workers hold while jobs end quickly. Four messages a pop
# halve the main process' share of it; eight saved no more.
BURST: Final = 4

# What a worker holds beyond what it runs must be done within this time: so long does an urgent job
# wait behind it, and an idle worker for it.
QUICK_S: Final = 0.1
# About the last twenty acknowledgements count.
_WEIGHT: Final = 0.1


class AckRate:
    """The rhythm of one consumer's acknowledgements; times are monotonic seconds.

    An exponentially weighted mean of the intervals between them. It starts slow, and idle time
    makes it slow again: a consumer has to show that its jobs are quick.
    """

    def __init__(self) -> None:
        self._interval_s = QUICK_S
        self._last = float("-inf")

    def note(self, now: float) -> None:
        """One message was acknowledged."""
        interval = min(now - self._last, 1.0)
        self._interval_s += _WEIGHT * (interval - self._interval_s)
        self._last = now

    def silent_s(self, now: float) -> float:
        """How long ago the last acknowledgement was."""
        return now - self._last

    def quick(self, held: int, now: float) -> bool:
        """Whether `held` messages would be done within `QUICK_S`, as far as one can tell."""
        return self._interval_s * held < QUICK_S and now - self._last < QUICK_S
