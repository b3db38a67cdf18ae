"""Whether a long backlog slows the worker: two queues of one server, drained in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

import redis

from bench.contenders import TASKYARD
from bench.processes import Bench
from bench.throughput import await_level

__all__ = ["Flatness", "flatness"]

_SMALL = 1_000
# Every turn starts with this much more than it measures, for the worker to get going.
_LEAD, _MEASURED = 300, 1_500


@dataclass(frozen=True)
class Flatness:
    """Jobs a second at both depths; `ratio` is the median of the turns' ratios."""

    largest: int
    jobs_per_s_small: float
    jobs_per_s_large: float
    ratio: float


def flatness(bench: Bench, largest: int, turns: int) -> Flatness:
    """Fill one namespace with `largest` jobs and measure it in turns with one of 1,000."""
    client = redis.Redis.from_url(bench.url)
    client.flushall()
    large = [0.0] * turns
    small = [0.0] * turns
    bench.send_as(_namespace("large"), TASKYARD, largest, "noop", 100, "send_many")
    for turn in range(turns):
        bench.send_as(
            _namespace("small"), TASKYARD, _SMALL + _LEAD + _MEASURED, "noop", 100, "send_many"
        )
        small[turn] = _measure(bench, client, "small")
        large[turn] = _measure(bench, client, "large")
        client.delete("small.exec")
    client.flushall()
    client.close()
    return Flatness(
        largest=largest,
        jobs_per_s_small=statistics.median(small),
        jobs_per_s_large=statistics.median(large),
        ratio=statistics.median(b / a for a, b in zip(small, large, strict=True)),
    )


def _namespace(name: str) -> dict[str, str]:
    # The stream's budget must not end in the middle: a thinned ledger would be cheaper.
    return {"TASKYARD_NAMESPACE": name, "TASKYARD_LIFECYCLE_MAX_EVENTS": "10000000"}


def _measure(bench: Bench, client: redis.Redis, name: str) -> float:
    queue = f"{name}.exec"
    contender = replace(
        TASKYARD,
        argv=tuple(queue if word == "exec" else word for word in TASKYARD.argv),
        backlog=lambda server: sum(_depths(server, queue)),
    )
    depth = contender.backlog(client)
    with bench.workers(contender, _namespace(name)) as workers:
        start, before = await_level(contender, client, depth - _LEAD, workers)
        end, after = await_level(contender, client, before - _MEASURED, workers)
    return (before - after) / (end - start)


def _depths(server: redis.Redis, queue: str) -> Iterator[int]:
    for step in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
        yield int(server.llen(queue + step))
