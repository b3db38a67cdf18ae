"""Measure how quickly jobs end, and decide from that how many messages a worker may hold."""

from __future__ import annotations

from typing import Final

__all__ = ["BURST", "QUICK_S", "AckRate"]

# While jobs end quickly, a worker may hold this many times its prefetch count. Measured: with four
# messages in each pop, the main process spends half as much time per message on pops as with one;
# eight saved no more.
BURST: Final = 4

# What a worker holds beyond what it runs must be done within this time, since an urgent job waits
# behind it, and an idle worker cannot have it.
QUICK_S: Final = 0.1
# After this time without an end of a job, messages beyond the prefetch count are too many.
_SLOW_AFTER_S: Final = 1.0
# About the last twenty acknowledgements count.
_WEIGHT: Final = 0.1


class AckRate:
    """The rate of one consumer's acknowledgements; times are monotonic seconds.

    It is an exponentially weighted mean of the intervals between acknowledgements. The rate
    starts slow, and idle time makes it slow again, so a consumer must show that its jobs are
    quick. While they are, the consumer may hold `burst` times its prefetch count.
    """

    def __init__(self) -> None:
        self._interval_s = QUICK_S
        self._last = float("-inf")

    def note(self, now: float) -> None:
        """Note that one message was acknowledged."""
        interval = min(now - self._last, 1.0)
        self._interval_s += _WEIGHT * (interval - self._interval_s)
        self._last = now

    def quick(self, held: int, now: float) -> bool:
        """Return whether the consumer would probably finish `held` messages within `QUICK_S`."""
        return self._interval_s * held < QUICK_S and now - self._last < QUICK_S

    def bursts(self, prefetch: int, burst: int, now: float) -> bool:
        """Return whether the consumer may hold more messages than its prefetch count."""
        return burst > 1 and self.quick(prefetch * burst, now)

    def room(self, held: int, prefetch: int, burst: int, now: float) -> int:
        """Return how many messages the next pop may take.

        In a burst a pop waits until half of the limit is free: a pop for four messages costs little
        more than one for one.
        """
        if not self.bursts(prefetch, burst, now):
            return max(prefetch - held, 0)
        limit = prefetch * burst
        free = limit - held
        return free if free >= limit // 2 else 0

    def over_prefetch(self, held: int, prefetch: int, now: float) -> int:
        """Return by how many messages the prefetch count is exceeded while no job ends."""
        if now - self._last < _SLOW_AFTER_S:
            return 0
        return max(held - prefetch, 0)
