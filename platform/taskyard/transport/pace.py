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
# How long nothing must have ended before what is held beyond the prefetch count is too much.
_SURPLUS_S: Final = 1.0
# About the last twenty acknowledgements count.
_WEIGHT: Final = 0.1


class AckRate:
    """The rhythm of one consumer's acknowledgements; times are monotonic seconds.

    An exponentially weighted mean of the intervals between them. It starts slow, and idle time
    makes it slow again: a consumer has to show that its jobs are quick. While they are, it may hold
    `burst` times its prefetch count.
    """

    def __init__(self) -> None:
        self._interval_s = QUICK_S
        self._last = float("-inf")

    def note(self, now: float) -> None:
        """One message was acknowledged."""
        interval = min(now - self._last, 1.0)
        self._interval_s += _WEIGHT * (interval - self._interval_s)
        self._last = now

    def quick(self, held: int, now: float) -> bool:
        """Whether `held` messages would be done within `QUICK_S`, as far as one can tell."""
        return self._interval_s * held < QUICK_S and now - self._last < QUICK_S

    def bursts(self, prefetch: int, burst: int, now: float) -> bool:
        """Whether more than the prefetch count may be held."""
        return burst > 1 and self.quick(prefetch * burst, now)

    def room(self, held: int, prefetch: int, burst: int, now: float) -> int:
        """How many messages the next pop may take.

        In a burst a pop waits until half of what may be held is free: one for four messages costs
        little more than one for one.
        """
        if not self.bursts(prefetch, burst, now):
            return max(prefetch - held, 0)
        limit = prefetch * burst
        free = limit - held
        return free if free >= limit // 2 else 0

    def over_prefetch(self, held: int, prefetch: int, now: float) -> int:
        """How many messages beyond the prefetch count are held while nothing ends any more."""
        if now - self._last < _SURPLUS_S:
            return 0
        return max(held - prefetch, 0)
