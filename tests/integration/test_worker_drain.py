"""SIGTERM: what runs is finished, decided and acknowledged, and the worker ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from servers import Servers
from support.handlers import Notes
from support.pipes import reads_a_pipe, unread_bytes
from support.rabbitmq import count_messages
from support.waiting import eventually
from support.worker import Worker
from support.yard import STEPS, catalogue, fresh_settings, list_key
from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.jobs.states import State
from taskyard.settings import Settings

# A process that waits for somebody to read what it said gives up after 30 s.
WELL_BELOW_THAT_S = 15.0
# More than a pipe holds, and what of it is there at the least when the pipe is full.
BIG = "x" * 150_000
FULL = 32_768


@pytest.fixture(params=["redis", "rabbitmq"])
def settings(request: pytest.FixtureRequest, servers: Servers) -> Settings:
    """Each test on both brokers."""
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    return fresh_settings(url, broker_url=broker)


class Side:
    """The client's side of a test on either broker."""

    def __init__(self, yard: Taskyard) -> None:
        self.yard, self._client = yard, yard.records.client
        self.notes = Notes(self._client, yard.settings.namespace)

    def act(self, **payload: object) -> JobHandle:
        return self.yard.enqueue("exec_act", payload)

    def runs(self, job: JobHandle) -> int:
        return self.notes.runs(job.job_id)

    def waiting(self) -> int:
        """Messages in the queue `exec` that no worker holds."""
        settings = self.yard.settings
        name = settings.broker_name("exec")
        if settings.broker_url != settings.redis_url:
            return count_messages(settings, [name])
        return sum(self._client.llen(list_key(settings, "exec") + step) for step in STEPS)


@pytest.fixture
def side(settings: Settings) -> Iterator[Side]:
    with Taskyard(settings, catalogue()) as yard:
        yield Side(yard)


@dataclass
class Stopped:
    """A worker's only process, which reads nothing until it goes on."""

    worker: Worker
    pid: int

    def unread(self) -> int:
        return unread_bytes(self.pid)

    def drain(self) -> int:
        """SIGTERM to the worker; its process goes on after it was told to leave."""
        before = self.unread()
        self.worker.kill(signal.SIGTERM)
        self.worker.await_log("Warm shutdown")
        if before < FULL:
            eventually(lambda: self.unread() > before, "the word to leave behind the job")
        os.kill(self.pid, signal.SIGCONT)
        return self.worker.wait(within_s=WELL_BELOW_THAT_S)


@pytest.fixture
def stopped(start_worker: Callable[..., Worker]) -> Stopped:
    worker = start_worker(concurrency=1)
    worker.await_log(" ready.")
    (pid,) = worker.children()
    # The worker gives a job only to a process that has reported that it is up; it reads next.
    eventually(lambda: reads_a_pipe(pid), "the process waits for its first job")
    os.kill(pid, signal.SIGSTOP)
    return Stopped(worker, pid)


def test_a_job_that_its_process_has_not_answered_is_finished_and_ends_the_drain(
    side: Side, stopped: Stopped
) -> None:
    """It was given up, so that its process waited 30 s for somebody to read its outcome."""
    job = side.act(value=1)
    eventually(lambda: stopped.unread() > 0, "the job in the pipe of its process")
    assert stopped.drain() == 0
    assert job.state() is State.COMPLETED
    assert side.runs(job) == 1
    assert side.waiting() == 0


def test_a_job_that_is_half_written_to_its_process_is_finished_and_ends_the_drain(
    side: Side, stopped: Stopped
) -> None:
    """The word to leave would be taken for the rest of it; its answer is as long."""
    job = side.act(value=BIG)
    eventually(lambda: stopped.unread() >= FULL, "the pipe of the process full")
    assert stopped.drain() == 0
    assert job.state() is State.COMPLETED
    assert side.runs(job) == 1
    assert side.waiting() == 0


def test_what_runs_is_finished_and_what_is_held_goes_back(
    side: Side, start_worker: Callable[..., Worker]
) -> None:
    running = [side.act(gate="drain", value=1) for _ in range(2)]
    held = [side.act(value=2) for _ in range(4)]
    worker = start_worker(concurrency=2, options=["--prefetch-multiplier", "3"])
    for job in running:
        eventually(lambda job=job: side.runs(job) == 1, "two jobs run")
    eventually(lambda: side.waiting() == 0, "the others are held")
    worker.kill(signal.SIGTERM)
    worker.await_log("Warm shutdown")
    assert worker.running
    side.notes.open_gate("drain")
    assert worker.wait(within_s=WELL_BELOW_THAT_S) == 0
    assert [job.state() for job in running] == [State.COMPLETED] * 2
    assert [side.runs(job) for job in held] == [0] * 4
    eventually(lambda: side.waiting() == 4, "what was held is back")


def test_workers_that_are_drained_at_full_speed_end_at_once_and_no_job_runs_twice(
    side: Side, start_worker: Callable[..., Worker]
) -> None:
    requests = [
        EnqueueRequest(job_type="exec_act", payload={"value": number}) for number in range(400)
    ]
    jobs = side.yard.enqueue_many(requests)
    for name in ("first", "second", "third"):
        before = len(side.notes.order())
        worker = start_worker(name, concurrency=2)
        eventually(lambda before=before: len(side.notes.order()) > before + 50, "it is at work")
        worker.kill(signal.SIGTERM)
        assert worker.wait(within_s=WELL_BELOW_THAT_S) == 0
    start_worker("last", concurrency=2)
    for job in jobs:
        eventually(lambda job=job: job.state() is State.COMPLETED, "each job completed")
    assert [side.runs(job) for job in jobs] == [1] * len(jobs)
