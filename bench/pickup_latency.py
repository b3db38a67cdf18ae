"""An idle worker: how soon it picks up a job, and what it costs to wait."""

from __future__ import annotations

import time
from typing import Any

import redis

from bench.apps.taskyard_all_on import yard_at
from bench.contenders import Contender
from bench.processes import Bench, Workers

__all__ = ["idle_cpu_percent", "pickup_ms"]

_STREAM = "taskyard:lifecycle"
# Two acknowledgements' time: the next job meets a worker that waits.
_PAUSE_S = 0.03
_PATIENCE_S = 60.0


def pickup_ms(bench: Bench, contender: Contender, count: int) -> list[float]:
    """From admission to the start of the attempt, by the server's own clock, sorted."""
    bench.empty()
    client = bench.client(contender)
    with bench.workers(contender), yard_at(bench.redis_of(contender)) as yard:
        yard.enqueue("noop", {}).result(_PATIENCE_S)
        for _ in range(count):
            time.sleep(_PAUSE_S)
            yard.enqueue("noop", {})
        _await_empty(contender, client)
        times: dict[bytes, dict[bytes, int]] = {}
        entries: Any = client.xrange(_STREAM)
        for _, event in entries:
            times.setdefault(event[b"job"], {})[event[b"event"]] = int(event[b"at"])
    client.close()
    # The first one met a worker that was starting.
    waits = [(at[b"begin"] - at[b"admit"]) / 1000 for at in list(times.values())[1:]]
    return sorted(waits)


def idle_cpu_percent(bench: Bench, contender: Contender, seconds: float) -> float:
    """Processor time of all processes of a worker that has nothing to do, in percent of a core."""
    bench.empty()
    with bench.workers(contender) as workers:
        bench.send(contender, 20, "noop", 10, "send")
        with bench.client(contender) as client:
            _await_empty(contender, client)
        return _spent(workers, seconds)


def _spent(workers: Workers, seconds: float) -> float:
    time.sleep(2)
    before, started = workers.cpu_s(), time.monotonic()
    time.sleep(seconds)
    after, ended = workers.cpu_s(), time.monotonic()
    return 100 * (sum(after) - sum(before)) / (ended - started)


def _await_empty(contender: Contender, client: redis.Redis) -> None:
    until = time.monotonic() + _PATIENCE_S
    while contender.backlog(client) or client.hlen("unacked"):
        if time.monotonic() > until:
            raise TimeoutError(f"{contender.name} has not finished within {_PATIENCE_S:g} s")
        time.sleep(0.05)
