"""Whether the ledger keeps up: a backlog at full speed with the mirror beside it.

An event leaves the lifecycle stream when Postgres has committed it, so the stream's length is the
lag in events, and the age of its first entry, by the server's own clock, the lag in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from sqlalchemy import create_engine, text

from bench.contenders import TASKYARD
from bench.mirror_process import mirror_process
from bench.processes import Bench, Workers
from taskyard.database import migrate
from taskyard.records.job_keys import Keys
from taskyard.settings import Settings

__all__ = ["LedgerLag", "Sample", "greatest", "ledger_lag", "slope"]

_EVERY_S: Final = 0.1
_PATIENCE_S: Final = 240.0
# Where the stream thins to failures and counts what it leaves out (`taskyard.records`).
_THIN_AT: Final = 0.6


@dataclass(frozen=True)
class Sample:
    """One look: seconds since the worker's start, jobs left, events not yet in Postgres, their age.

    `behind_s` is the age of the oldest of these events.
    """

    at_s: float
    jobs_left: int
    events: int
    behind_s: float


@dataclass(frozen=True)
class LedgerLag:
    """The ledger beside a worker at full speed.

    First the burst: all jobs enqueued at once while the mirror runs, how many events were not yet
    in Postgres after the last, and how long until none was. Then the worker: `greatest_*` are while
    the backlog lasted, `empty_after_s` counts from its end.
    `growth_per_s` is by how many events the lag grew each second in the second half of the backlog;
    at most about zero: it keeps up. `bound_events` is where the stream would thin to failures, with
    what it leaves out counted in `gaps`. `jobs_missing` are those that the ledger never heard of.
    """

    jobs: int
    enqueued_per_s: float
    burst_events: int
    burst_empty_after_s: float
    jobs_per_s: float
    events_per_s: float
    greatest_events: int
    greatest_s: float
    growth_per_s: float
    empty_after_s: float
    bound_events: int
    gaps: int
    jobs_missing: int


def ledger_lag(bench: Bench, database_url: str, count: int) -> LedgerLag:
    """Enqueue `count` jobs, let the mirror come up to date, start the worker and watch."""
    migrate(database_url)
    bench.empty()
    keys = Keys(Settings(redis_url=bench.url).namespace)
    with mirror_process(bench, database_url) as mirror, bench.client(TASKYARD) as client:
        look = _Look(client, keys.lifecycle, mirror)
        look.until_started()
        enqueued_per_s = bench.send(TASKYARD, count, "noop", 100, "send_many")
        burst_events = int(client.xlen(keys.lifecycle))
        burst_s = look.until_mirrored()
        with bench.workers(TASKYARD) as workers:
            samples = look.until_done(workers)
            empty_after_s = look.until_mirrored()
        stored = _completed(database_url)
        gaps = sum(int(value) for value in _gaps(client, keys.gaps).values())
    burst = _Burst(enqueued_per_s, burst_events, burst_s)
    return _summed(samples, count, burst, stored, gaps, empty_after_s)


@dataclass(frozen=True)
class _Burst:
    enqueued_per_s: float
    events: int
    empty_after_s: float


class _Look:
    """Looks at the stream and at the jobs left, each look bounded."""

    def __init__(self, client: redis.Redis, stream: str, mirror: Workers) -> None:
        self._client, self._stream, self._mirror = client, stream, mirror

    def until_started(self) -> None:
        """Wait for the mirror to make its group, and with it the stream."""
        until = time.monotonic() + _PATIENCE_S
        while not self._client.exists(self._stream):
            self._check(until, "the mirror has not started")
            time.sleep(_EVERY_S)

    def until_mirrored(self) -> float:
        """Wait until no event is left, and no job that could still write one; the seconds."""
        start = time.monotonic()
        until = start + _PATIENCE_S
        while self._client.hlen("unacked") or self._client.xlen(self._stream):
            self._check(until, "the stream is not empty")
            time.sleep(_EVERY_S)
        return time.monotonic() - start

    def until_done(self, workers: Workers) -> list[Sample]:
        """A sample every tenth of a second until no job is left."""
        start = time.monotonic()
        until = start + _PATIENCE_S
        samples: list[Sample] = []
        while not samples or samples[-1].jobs_left:
            self._check(until, "the backlog is not empty")
            if workers.ended():
                raise TimeoutError("the worker ended before the backlog")
            samples.append(self._sample(start))
            time.sleep(_EVERY_S)
        return samples

    def _sample(self, start: float) -> Sample:
        oldest: Any = self._client.xrange(self._stream, count=1)
        seconds, micros = _time(self._client)
        behind_s = seconds + micros / 1e6 - _entry_s(oldest[0][0]) if oldest else 0.0
        left = TASKYARD.backlog(self._client)
        events = int(self._client.xlen(self._stream))
        return Sample(time.monotonic() - start, left, events, max(behind_s, 0.0))

    def _check(self, until: float, what: str) -> None:
        if self._mirror.ended():
            raise TimeoutError("the mirror ended; see build/bench-logs/mirror.log")
        if time.monotonic() > until:
            raise TimeoutError(f"{what} after {_PATIENCE_S:g} s")


def greatest(samples: Sequence[Sample]) -> tuple[int, float]:
    """The greatest lag in events and in seconds; not necessarily at the same moment."""
    return max(each.events for each in samples), max(each.behind_s for each in samples)


def slope(samples: Sequence[Sample]) -> float:
    """By how many events a second the lag grew in the second half; least squares."""
    late = samples[len(samples) // 2 :]
    mean_at = sum(each.at_s for each in late) / len(late)
    mean_events = sum(each.events for each in late) / len(late)
    spread = sum((each.at_s - mean_at) ** 2 for each in late)
    if not spread:
        return 0.0
    return sum((each.at_s - mean_at) * (each.events - mean_events) for each in late) / spread


def _summed(
    samples: Sequence[Sample],
    count: int,
    burst: _Burst,
    stored: tuple[int, int],
    gaps: int,
    empty_after_s: float,
) -> LedgerLag:
    busy = [each for each in samples if each.jobs_left < count]
    first, last = busy[0], busy[-1]
    jobs_per_s = (first.jobs_left - last.jobs_left) / (last.at_s - first.at_s)
    completed, events = stored
    events_per_job = (events - count) / count
    events_most, seconds_most = greatest(busy)
    return LedgerLag(
        jobs=count,
        enqueued_per_s=burst.enqueued_per_s,
        burst_events=burst.events,
        burst_empty_after_s=burst.empty_after_s,
        jobs_per_s=jobs_per_s,
        events_per_s=jobs_per_s * events_per_job,
        greatest_events=events_most,
        greatest_s=seconds_most,
        growth_per_s=slope(busy),
        empty_after_s=empty_after_s,
        bound_events=int(Settings().lifecycle_max_events * _THIN_AT),
        gaps=gaps,
        jobs_missing=count - completed,
    )


def _completed(database_url: str) -> tuple[int, int]:
    """Completed jobs of the ledger, and all events."""
    engine = create_engine(database_url)
    with engine.begin() as opened:
        done = opened.scalar(text("SELECT count(*) FROM job_ledger WHERE state = 'completed'"))
        events = opened.scalar(text("SELECT count(*) FROM job_events"))
    engine.dispose()
    return int(done or 0), int(events or 0)


def _gaps(client: redis.Redis, key: str) -> dict[bytes, bytes]:
    found: Any = client.hgetall(key)
    return dict(found)


def _time(client: redis.Redis) -> tuple[int, int]:
    found: Any = client.time()
    return int(found[0]), int(found[1])


def _entry_s(entry: bytes) -> float:
    """The milliseconds of an entry's id, as seconds."""
    return int(entry.partition(b"-")[0]) / 1000
