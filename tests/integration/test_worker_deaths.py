"""Processes of a worker that are killed: seen at once, and only what they did not tell is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from servers import Servers
from support.waiting import eventually
from support.worker import HANDLERS, Worker, gone
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.settings import Settings
from taskyard.transport.requeue import RETURN_S

# Celery's look every 5 s makes 10 s of three deaths at the least. What is left to us is the start
# of two processes, of which a busy machine makes a second or two.
THREE_DEATHS_S = 5.0
BIG = "x" * 200_000


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url(), lease_s=2, visibility_timeout_s=4)


def test_three_deaths_of_a_job_take_no_longer_than_the_start_of_its_processes(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    """A process that dies is replaced at once, not at Celery's next look."""
    start_worker(concurrency=1).await_log(" ready.")
    job = harness.act("kill")
    eventually(lambda: harness.runs(job) == 1, "the first run")
    first_s = time.monotonic()
    assert harness.await_end(job) is State.DEAD_LETTERED
    assert time.monotonic() - first_s < THREE_DEATHS_S
    assert harness.event_names(job) == ["admit", *["begin", "lose"] * 2, "begin", "fail"]
    assert harness.runs(job) == 3


def test_a_counted_death_waits_for_nothing_but_a_process(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    """Other messages that go back a second time wait `RETURN_S`, since nothing might end them."""
    start_worker(concurrency=1)
    waits_s = []
    # One after the other: the machine may be busy, and each would wait for the others' processes.
    for _ in range(4):
        job = harness.act("kill")
        assert harness.await_end(job) is State.DEAD_LETTERED
        waits_s.append(second_return_s(harness, job))
    assert min(waits_s) < RETURN_S


def second_return_s(harness: ServerHarness, job: JobHandle) -> float:
    """Seconds from a job's second death to its third begin, by the clock of Redis."""
    stream = harness.redis.xrange(f"{harness.settings.namespace}:lifecycle")
    found = [
        (fields[b"event"], int(key.partition(b"-")[0]) / 1000)
        for key, fields in stream
        if fields[b"job"].decode() == job.job_id
    ]
    deaths = [at for event, at in found if event == b"lose"]
    begins = [at for event, at in found if event == b"begin"]
    return begins[2] - deaths[1]


def test_a_job_whose_process_told_its_outcome_and_was_killed_is_not_lost(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    """The death may be seen before the outcome was read, or while half of it was."""
    jobs = [harness.act(value=value) for _ in range(8) for value in (1, BIG)]
    worker = start_worker(concurrency=2, modules=("support.kill_after_result", HANDLERS))
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-3000:]
    harness.await_quiet()
    eventually(lambda: worker.log.count("signal 9 (SIGKILL)") >= len(jobs), "a death for each job")
    assert "the process of job" not in worker.log
    assert [harness.runs(job) for job in jobs] == [1] * len(jobs)
    assert {tuple(harness.event_names(job)) for job in jobs} == {("admit", "begin", "complete")}


def test_the_processes_of_a_killed_worker_die_with_it_and_their_job_ends_once(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    """No orphan runs on, and another worker takes over what it ran."""
    job = harness.act(gate="orphan", value=1)
    killed = start_worker("killed", concurrency=2)
    eventually(lambda: harness.runs(job) == 1, "the job runs")
    children = killed.children()
    killed.kill()
    eventually(lambda: all(gone(pid) for pid in children), "its processes are gone")
    harness.open_gate("orphan")
    start_worker("second", concurrency=1)
    assert job.result(60) == 1
    harness.await_quiet()
    assert harness.runs(job) == 2
    assert harness.event_names(job) == ["admit", "begin", "begin", "complete"]
