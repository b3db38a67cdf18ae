"""The order of service: urgent first, but nothing waits for ever."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Order"]


class Order:
    """Which lists a pop looks into, and in which order.

    Normally level by level, the queues of one level in rotation. Every `fairness`-th pop runs the
    other way round, for one message: so the least urgent level and the last queue get at least
    one in `fairness` pops, however much urgent work there is. 0 switches that off.
    """

    def __init__(self, steps: Sequence[int], fairness: int) -> None:
        if fairness < 0 or fairness == 1:
            raise ValueError(f"fairness must be 0 (off) or at least 2, got {fairness}")
        self._steps = tuple(steps)
        self._fairness = fairness
        self._pops = 0
        self._turn = 0

    def next(self, queues: Sequence[str], batch: int) -> tuple[list[tuple[str, int]], int]:
        """((queue, step) in order of service, how many messages) of the next pop."""
        self._pops += 1
        self._turn = (self._turn + 1) % len(queues)
        rotated = [*queues[self._turn :], *queues[: self._turn]]
        pairs = [(queue, step) for step in self._steps for queue in rotated]
        if self._fairness and self._pops % self._fairness == 0:
            return pairs[::-1], min(batch, 1)
        return pairs, batch
