"""How fast a backlog shrinks, without start and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import Contender
from bench.processes import Bench, Workers

__all__ = ["Drained", "await_level", "drain", "measured"]

# Measured between these shares of the backlog: starting up and running dry are other questions.
_FROM, _TO = 0.85, 0.05
_LOOK_EVERY_S = 0.01
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Drained:
    """What one backlog told."""

    enqueued_per_s: float
    jobs_per_s: float
    pss_kib: int
    main_cpu_ms: float
    children_cpu_ms: float


def drain(bench: Bench, contender: Contender, count: int, body: str, size: int) -> Drained:
    """Enqueue `count` jobs on an empty server, start the worker, measure how they go away."""
    bench.empty()
    enqueued = bench.send(contender, count, body, size, "send")
    with bench.gauge(contender) as left:
        total = left()
        with bench.workers(contender) as workers:
            return measured(contender, workers, left, total, enqueued)


def measured(
    contender: Contender,
    workers: Workers,
    left: Callable[[], int],
    total: int,
    enqueued_per_s: float,
) -> Drained:
    """What happens between the two levels of a backlog of `total` jobs.

    Raises TimeoutError, also if the jobs between the levels are done between two looks.
    """
    start, before = await_level(contender, left, int(total * _FROM), workers)
    cpu_before = workers.cpu_s()
    end, after = await_level(contender, left, int(total * _TO), workers)
    cpu = [b - a for a, b in zip(cpu_before, workers.cpu_s(), strict=False)]
    done = before - after
    if done <= 0:
        raise TimeoutError(
            f"{contender.name}: {total} jobs were done between two looks at the backlog, so "
            "nothing can be measured. Enqueue more jobs"
        )
    return Drained(
        enqueued_per_s=enqueued_per_s,
        jobs_per_s=done / (end - start),
        pss_kib=workers.pss_kib(),
        main_cpu_ms=cpu[0] * 1000 / done,
        children_cpu_ms=sum(cpu[1:]) * 1000 / done,
    )


def await_level(
    contender: Contender, left: Callable[[], int], level: int, workers: Workers
) -> tuple[float, int]:
    """(when, how many were left) as soon as the backlog is at `level` or below."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        count, now = left(), time.monotonic()
        if count <= level:
            return now, count
        if now > until or workers.ended():
            raise TimeoutError(
                f"{contender.name}: {count} jobs left, expected {level} within {_PATIENCE_S:g} s; "
                f"see its log in build/bench-logs"
            )
        time.sleep(_LOOK_EVERY_S)
