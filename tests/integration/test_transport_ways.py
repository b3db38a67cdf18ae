"""Every way of a job meets every fault of its Redis: retry, letter, enqueue; told and bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from redis import Redis

from servers import RedisServer
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.settings import Settings

WATCHED_S = 3.0
EVENTS = 80


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    return fresh_settings(server.url, lease_s=2)


@contextmanager
def connections_lost(server: RedisServer) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield


@contextmanager
def scripts_flushed(server: RedisServer) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        client.script_flush()
    yield


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


Fault = Callable[[RedisServer], AbstractContextManager[None]]
PASSING: dict[str, Fault] = {"lost": connections_lost, "flushed": scripts_flushed}
LASTING: dict[str, Fault] = {"read-only": read_only, "full": full}


def at_work(harness: ServerHarness) -> list[JobHandle]:
    """One that will be retried from the delay store, one that will die, one that will succeed."""
    kinds = [
        ("plan_act", "fail", 1),
        ("exec_act", "gate then fail", -1),
        ("exec_act", "return", -1),
    ]
    jobs = [
        harness.act(do, job_type=job_type, times=times, gate="go", value="done")
        for job_type, do, times in kinds
    ]
    eventually(lambda: len(harness.notes.order()) >= 2, "two are at work")
    return jobs


def assert_all_end(harness: ServerHarness, worker: Worker, jobs: list[JobHandle]) -> None:
    ends = [harness.await_end(job) for job in jobs]
    assert ends == [State.COMPLETED, State.DEAD_LETTERED, State.COMPLETED], worker.log[-6000:]
    eventually(lambda: harness.letters_of(jobs[1]), "the letter", why=lambda: worker.log[-6000:])
    harness.await_quiet()
    assert len({letter["letter_id"] for letter in harness.letters()}) == 1
    assert worker.running


@pytest.mark.parametrize("fault", [*PASSING, *LASTING])
def test_retry_letter_and_result_survive(
    harness: ServerHarness, server: RedisServer, start_worker: Callable[..., Worker], fault: str
) -> None:
    worker = start_worker(queues=("exec", "plan"))
    worker.await_log(" ready.")
    jobs = at_work(harness)
    harness.open_gate("go")
    with {**PASSING, **LASTING}[fault](server):
        if fault in LASTING:
            lines_before, until = worker.log.count("\n["), time.monotonic() + WATCHED_S
            eventually(lambda: time.monotonic() > until, "time passes")
            assert worker.log.count("\n[") - lines_before < EVENTS, worker.log[-6000:]
    assert_all_end(harness, worker, jobs)


@pytest.mark.parametrize("fault", LASTING)
@pytest.mark.parametrize("countdown", [None, 0.5], ids=["at once", "later"])
def test_an_enqueue_that_is_refused_says_so_and_may_be_repeated(
    harness: ServerHarness, server: RedisServer, fault: str, countdown: float | None
) -> None:
    with (
        LASTING[fault](server),
        pytest.raises(TaskyardError, match=r"read only|maxmemory|Redis"),
    ):
        harness.act(idempotency_key="once", countdown=countdown)
    job = harness.act(idempotency_key="once", countdown=countdown)
    assert job.created
    assert harness.queued() + harness.delayed() == 1


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("countdown", [None, 0.5], ids=["at once", "later"])
def test_an_enqueue_after_a_passing_fault_goes_through(
    harness: ServerHarness, server: RedisServer, fault: str, countdown: float | None
) -> None:
    harness.act(idempotency_key="before", countdown=countdown)
    with PASSING[fault](server):
        assert harness.act(idempotency_key="once", countdown=countdown).created
    assert harness.queued() + harness.delayed() == 2
