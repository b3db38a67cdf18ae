"""An async service: `python -m bench.apps.taskyard_async <what> <numbers>`, prints JSON.

`enqueue <rounds> <calls>`: rounds of so many concurrent `aenqueue` calls, and then as many again
by tasks that each enqueue one job after the other. `await <jobs> <seconds>`: that many results.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.apps.taskyard_all_on import yard
from bench.apps.work import payload
from taskyard.client import EnqueueRequest, Taskyard

__all__ = ["Awaited", "Enqueued", "main"]

_ARGUMENT: Final = payload(1024)
# While results are awaited, until all are subscribed to and were looked at.
_SETTLED_S: Final = 3.0


@dataclass
class Enqueued:
    """Jobs a second of each round, and how long each call took."""

    round_trip_ms: float
    per_s: list[float] = field(default_factory=list)
    call_ms: list[float] = field(default_factory=list)
    steady_per_s: float = 0.0
    steady_call_ms: list[float] = field(default_factory=list)
    cpu_us: float = 0.0


@dataclass
class Awaited:
    """Commands that Redis got meanwhile: to begin, and a second after that."""

    jobs: int
    seconds: float
    begin_commands: int
    commands_per_s: float
    cpu_percent: float


async def _call(client: Taskyard, took_ms: list[float]) -> None:
    start = time.perf_counter()
    await client.aenqueue("noop", _ARGUMENT)
    took_ms.append((time.perf_counter() - start) * 1000)


async def _round(client: Taskyard, calls: int, took_ms: list[float]) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(_call(client, took_ms) for _ in range(calls)))
    return calls / (time.perf_counter() - start)


async def _steady(client: Taskyard, calls: int, each: int, took_ms: list[float]) -> float:
    async def task() -> None:
        for _ in range(each):
            await _call(client, took_ms)

    start = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(calls)))
    return calls * each / (time.perf_counter() - start)


async def _enqueue(client: Taskyard, rounds: int, calls: int) -> Enqueued:
    found = Enqueued(_round_trip_ms(client))
    # Connections, scripts and templates are there before the clock runs.
    await _round(client, calls, [])
    before = time.process_time()
    for _ in range(rounds):
        found.per_s.append(await _round(client, calls, found.call_ms))
    found.cpu_us = (time.process_time() - before) * 1_000_000 / (rounds * calls)
    found.steady_per_s = await _steady(client, calls, rounds, found.steady_call_ms)
    return found


def _round_trip_ms(client: Taskyard) -> float:
    took = []
    for _ in range(50):
        start = time.perf_counter()
        client.records.client.ping()
        took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2] * 1000


async def _await(client: Taskyard, count: int, seconds: float) -> Awaited:
    jobs = client.enqueue_many(
        EnqueueRequest(job_type="noop", payload=_ARGUMENT) for _ in range(count)
    )
    before = _commands(client)
    awaited = [asyncio.ensure_future(job.aresult()) for job in jobs]
    await asyncio.sleep(_SETTLED_S)
    settled, cpu_s = _commands(client), _cpu_s()
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - start
    cpu_s, commands = _cpu_s() - cpu_s, _commands(client) - settled
    assert not any(each.done() for each in awaited)  # noqa: S101 - no worker runs
    for each in awaited:
        each.cancel()
    await asyncio.gather(*awaited, return_exceptions=True)
    return Awaited(count, took_s, settled - before, commands / took_s, 100 * cpu_s / took_s)


def _commands(client: Taskyard) -> int:
    """How many the server has processed, those inside of scripts included."""
    found: dict[str, Any] = client.records.client.info("stats")
    return int(found["total_commands_processed"])


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure what the arguments say."""
    what, first, second = sys.argv[1:]
    with yard() as client:
        if what == "enqueue":
            found: Enqueued | Awaited = asyncio.run(_enqueue(client, int(first), int(second)))
        else:
            found = asyncio.run(_await(client, int(first), float(second)))
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
