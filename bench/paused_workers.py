"""Workers that wait paused: started once, stopped (SIGSTOP) whenever it is not their turn.

Neither their start nor their first jobs are measured, turns can be short and therefore close to
each other in time, and whoever waits costs the others nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from bench.contenders import Contender
from bench.processes import Bench, Workers
from bench.throughput import Drained, await_level, measured

__all__ = ["PausedWorkers", "paused_workers"]

_WARM_UP_JOBS: Final = 200
# An empty queue is not the end: the last few jobs are still with the worker.
_SETTLE_S: Final = 0.2


@dataclass(frozen=True)
class _Ready:
    workers: Workers
    left: Callable[[], int]


class PausedWorkers:
    """The contenders of one comparison, each with its paused workers."""

    def __init__(self, bench: Bench, ready: dict[str, _Ready]) -> None:
        self._bench = bench
        self._ready = ready

    def turn(self, contender: Contender, count: int, body: str, size: int) -> Drained:
        """Enqueue `count` jobs beside paused workers, let them run, measure, pause them again."""
        ready = self._ready[contender.name]
        enqueued = self._bench.send(contender, count, body, size, "send")
        total = ready.left()
        with ready.workers.running():
            found = measured(contender, ready.workers, ready.left, total, enqueued)
            await_level(contender, ready.left, 0, ready.workers)
            time.sleep(_SETTLE_S)
        return found

    def enqueue(self, contender: Contender, count: int, body: str, size: int, how: str) -> float:
        """Jobs enqueued a second; they are run afterwards, unmeasured."""
        ready = self._ready[contender.name]
        enqueued = self._bench.send(contender, count, body, size, how)
        with ready.workers.running():
            await_level(contender, ready.left, 0, ready.workers)
            time.sleep(_SETTLE_S)
        return enqueued


@contextmanager
def paused_workers(bench: Bench, contenders: Sequence[Contender]) -> Iterator[PausedWorkers]:
    """Start everybody's workers, warm them up one after the other, kill them at the end."""
    bench.empty()
    with ExitStack() as stack:
        ready: dict[str, _Ready] = {}
        for each in contenders:
            bench.send(each, _WARM_UP_JOBS, "noop", 100, "send")
            left = stack.enter_context(bench.gauge(each))
            workers = stack.enter_context(bench.workers(each))
            await_level(each, left, 0, workers)
            time.sleep(_SETTLE_S)
            workers.pause()
            ready[each.name] = _Ready(workers, left)
        yield PausedWorkers(bench, ready)
    bench.empty()
