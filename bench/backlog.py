"""Whether a long backlog slows the worker: two queues of one server, drained in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import redis

from bench.contenders import TASKYARD, Contender
from bench.deadline import Deadline
from bench.interleaved import interleaved
from bench.processes import Bench
from bench.spread import Spread, ratios, spread
from bench.throughput import await_level

__all__ = ["Flatness", "flatness"]

_SMALL: Final = 1_000
# Every turn starts with this much more than it measures, for the worker to get going.
_LEAD, _MEASURED = 300, 1_500
_STEPS: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@dataclass(frozen=True)
class Flatness:
    """Jobs a second at both depths; `ratio` is that of the long backlog by the short one."""

    largest: int
    jobs_per_s_small: float
    jobs_per_s_large: float
    ratio: Spread


def flatness(bench: Bench, largest: int, rounds: int, deadline: Deadline) -> Flatness:
    """Fill one namespace with `largest` jobs and measure it in turns with one of 1,000."""
    small, large = _in_namespace("small"), _in_namespace("large")
    bench.empty()
    _fill(bench, large, largest)
    with bench.client(TASKYARD) as client:
        found = interleaved((small, large), rounds, deadline, lambda one: _turn(bench, client, one))
    bench.empty()
    shallow, deep = found[small.name], found[large.name]
    return Flatness(
        largest=largest,
        jobs_per_s_small=statistics.median(shallow),
        jobs_per_s_large=statistics.median(deep),
        ratio=spread(ratios(deep, shallow)),
    )


def _turn(bench: Bench, client: redis.Redis, contender: Contender) -> float:
    if contender.name == "small":
        client.delete(*_keys("small"))
        _fill(bench, contender, _SMALL + _LEAD + _MEASURED)
    depth = contender.backlog(client)
    with bench.workers(contender, _variables(contender)) as workers, bench.gauge(contender) as left:
        start, before = await_level(contender, left, depth - _LEAD, workers)
        end, after = await_level(contender, left, before - _MEASURED, workers)
    return (before - after) / (end - start)


def _fill(bench: Bench, contender: Contender, count: int) -> None:
    bench.send_as(_variables(contender), contender, count, "noop", 100, "send_many")


def _variables(contender: Contender) -> Mapping[str, str]:
    # The stream's budget must not end in the middle: a thinned ledger would be cheaper.
    return {"TASKYARD_NAMESPACE": contender.name, "TASKYARD_LIFECYCLE_MAX_EVENTS": "10000000"}


def _in_namespace(name: str) -> Contender:
    queue = f"{name}.exec"
    argv = tuple(queue if word == "exec" else word for word in TASKYARD.argv)
    return replace(TASKYARD, name=name, argv=argv, backlog=_depth_of(name))


def _depth_of(name: str) -> Callable[[redis.Redis], int]:
    return lambda client: sum(int(client.llen(key)) for key in _keys(name))


def _keys(name: str) -> list[str]:
    return [f"{name}.exec{step}" for step in _STEPS]
