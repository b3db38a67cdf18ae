"""How often a pool looks for a death, and for whose; what it gives up at a drain."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from billiard.pool import CLOSE
from celery.concurrency import asynpool

from taskyard.engine.pool import LOOK_AGAIN_S, LOOKS, JobPool


class Hub:
    """A loop whose timers a test fires by hand."""

    def __init__(self) -> None:
        self.timers: deque[tuple[float, Callable[[], None]]] = deque()

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        self.timers.append((delay_s, lambda: call(*args)))

    def fire(self) -> float:
        delay_s, call = self.timers.popleft()
        call()
        return delay_s


class Process:
    """A process whose files are closed; it can be waited for after `looks` looks."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    def _is_alive(self) -> bool:
        self.looks -= 1
        return self.looks >= 0


class Job:
    """What the pool knows of a job of which no process has answered."""

    def __init__(self, *, accepted: bool = False, write_to: object | None = None) -> None:
        self._accepted, self._write_to = accepted, write_to
        self.given_up = False

    def discard(self) -> None:
        self.given_up = True


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> JobPool:
    """One without processes, whose every look at them is counted in `looks`."""
    made = JobPool.__new__(JobPool)
    made._pool, made._waiting_to_start = [], set()
    made.looks = 0

    def maintain_pool() -> None:
        made.looks += 1
        made._pool[:] = [process for process in made._pool if process._is_alive()]

    made.maintain_pool = maintain_pool
    monkeypatch.setattr(asynpool.AsynPool, "_untrack_child_process", lambda *_: None)
    return made


def test_a_death_that_cannot_be_seen_yet_is_looked_for_again(pool: JobPool, hub: Hub) -> None:
    process = Process(looks=3)
    pool._pool.append(process)
    pool._event_process_exit(hub, process)
    assert [hub.fire(), hub.fire(), hub.fire()] == [LOOK_AGAIN_S] * 3
    assert (pool._pool, list(hub.timers)) == ([], [])
    # Nobody else was looked at meanwhile.
    assert pool.looks == 2


def test_a_process_that_closed_its_files_and_lives_is_left_to_celery(
    pool: JobPool, hub: Hub
) -> None:
    process = Process(looks=float("inf"))
    pool._pool.append(process)
    pool._event_process_exit(hub, process)
    fired = 0
    while hub.timers:
        hub.fire()
        fired += 1
    assert fired == LOOKS
    assert pool._pool == [process]


def test_a_process_that_never_came_up_is_not_replaced_in_a_hurry(pool: JobPool, hub: Hub) -> None:
    process = Process(looks=float("inf"))
    pool._pool.append(process)
    pool._waiting_to_start.add(process)
    pool._event_process_exit(hub, process)
    assert not hub.timers


def test_a_drain_gives_up_only_what_no_process_can_have_seen(pool: JobPool) -> None:
    process = object()
    jobs = {
        "running": Job(accepted=True, write_to=process),
        "written": Job(write_to=process),
        "not written": Job(),
        "put back by a death": Job(write_to=process),
    }
    pool._state, pool._cache = CLOSE, jobs
    pool._active_writers = set()
    pool.outbound_buffer = deque([jobs["not written"], jobs["put back by a death"]])
    pool.flush()
    assert [name for name, job in jobs.items() if job.given_up] == [
        "not written",
        "put back by a death",
    ]
    assert not pool.outbound_buffer
