"""How fast a backlog shrinks, without start and end."""

from __future__ import annotations

import time
from dataclasses import dataclass

import redis

from bench.contenders import Contender
from bench.processes import Bench, Workers

__all__ = ["Drained", "await_level", "drain"]

# Measured between these shares of the backlog: starting up and running dry are other questions.
_FROM, _TO = 0.85, 0.05
_LOOK_EVERY_S = 0.01
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Drained:
    """What one backlog told."""

    enqueued_per_s: float
    jobs_per_s: float
    pss_kib: int
    main_cpu_ms: float
    children_cpu_ms: float


def drain(
    bench: Bench, contender: Contender, count: int, body: str, size: int, how: str = "send"
) -> Drained:
    """Enqueue `count` jobs, start the worker, measure how they go away."""
    client = redis.Redis.from_url(bench.url)
    client.flushall()
    enqueued = bench.send(contender, count, body, size, how)
    total = contender.backlog(client)
    with bench.workers(contender) as workers:
        start, before = await_level(contender, client, int(total * _FROM), workers)
        cpu_before = workers.cpu_s()
        end, after = await_level(contender, client, int(total * _TO), workers)
        cpu = [b - a for a, b in zip(cpu_before, workers.cpu_s(), strict=False)]
        pss = workers.pss_kib()
    client.close()
    done = before - after
    return Drained(
        enqueued_per_s=enqueued,
        jobs_per_s=done / (end - start),
        pss_kib=pss,
        main_cpu_ms=cpu[0] * 1000 / done,
        children_cpu_ms=sum(cpu[1:]) * 1000 / done,
    )


def await_level(
    contender: Contender, client: redis.Redis, level: int, workers: Workers
) -> tuple[float, int]:
    """(when, how many were left) as soon as the backlog is at `level` or below."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        left, now = contender.backlog(client), time.monotonic()
        if left <= level:
            return now, left
        if now > until or workers.ended():
            raise TimeoutError(f"{contender.name}: {left} jobs left, expected {level}")
        time.sleep(_LOOK_EVERY_S)
