"""Leases in real workers: who holds a job, who waits for it, and whose outcome counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Queue

from servers import Servers
from support.seams import FOLDER_VARIABLE, UNPROTECTED_VARIABLE
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.broker import RedisPublisher, connection
from taskyard.client import JobHandle
from taskyard.clock import us_of
from taskyard.jobs.states import State
from taskyard.records import Run
from taskyard.settings import Settings
from taskyard.wire import Stamp
from taskyard.wire.letter_envelope import RawMessage

LEASE_S = 1
LONG_LEASE_S = 4
TAKEN_OVER = ["admit", "begin", "begin", "complete"]


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url(), lease_s=LEASE_S, visibility_timeout_s=2)


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that a test has stopped; they go on at its end, so that they can end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


def unprotected(folder: Path, what: str) -> dict[str, object]:
    """Worker fields that switch one protection off."""
    variables = {FOLDER_VARIABLE: str(folder), UNPROTECTED_VARIABLE: what}
    return {"environment": variables, "modules": ("support.seams", HANDLERS)}


def await_start(harness: ServerHarness, job: JobHandle, run: int = 1) -> int:
    """Wait for the `run`-th start of the handler; the pid of its process."""
    eventually(lambda: harness.runs(job) == run, f"run {run}")
    return int(harness.notes.run_facts(job.job_id)[run - 1]["pid"])


def begins(harness: ServerHarness, job: JobHandle) -> list[str]:
    return [event["event"] for event in harness.events(job) if event["event"] == "begin"]


# --- renewal ----------------------------------------------------------------------------------


def test_a_handler_that_outlasts_lease_and_visibility_keeps_its_job(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act(gate="long", value=1)
    start_worker("one")
    await_start(harness, job)
    start_worker("two")
    started_us = job.record().number("started")
    eventually(
        lambda: job.record().number("lease_until") > started_us + 4_000_000, "the third renewal"
    )
    # The visibility timeout has passed: the second delivery found the job held and waits.
    eventually(lambda: harness.delayed() == 1, "the second delivery in the delay store")
    harness.open_gate("long")
    assert job.result(30) == 1
    harness.await_quiet()
    assert harness.runs(job) == 1
    assert harness.event_names(job) == ["admit", "begin", "complete"]


def test_without_renewal_it_would_run_twice(
    harness: ServerHarness, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    job = harness.act(gate="long", value=1)
    start_worker(**unprotected(tmp_path, "no renewal"))
    await_start(harness, job, run=2)
    harness.open_gate("long")
    harness.await_end(job)
    harness.await_quiet()
    assert begins(harness, job) == ["begin", "begin"]


# --- a paused process -------------------------------------------------------------------------


def test_a_paused_process_loses_its_job_and_its_late_outcome_is_not_recorded(
    harness: ServerHarness, start_worker: Callable[..., Worker], stopped: list[int]
) -> None:
    job = harness.act("token", gate="paused")
    one = start_worker("one", concurrency=1)
    stopped.append(await_start(harness, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1)
    await_start(harness, job, run=2)
    first, second = (facts["token"] for facts in harness.notes.run_facts(job.job_id))
    assert second > first
    harness.open_gate("paused")
    assert job.result(30) == second
    os.kill(stopped[0], signal.SIGCONT)
    one.await_log("the outcome of this attempt is dropped, because the job is already completed")
    harness.await_quiet()
    assert job.result(0) == second
    assert harness.event_names(job) == TAKEN_OVER


def test_without_the_token_the_late_outcome_would_be_recorded_over_the_running_attempt(
    harness: ServerHarness, start_worker: Callable[..., Worker], stopped: list[int], tmp_path: Path
) -> None:
    job = harness.act("token", gate="paused")
    start_worker("one", concurrency=1, **unprotected(tmp_path, "no token"))
    stopped.append(await_start(harness, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1, **unprotected(tmp_path, "no token"))
    stopped.append(await_start(harness, job, run=2))
    os.kill(stopped[1], signal.SIGSTOP)
    harness.open_gate("paused")
    os.kill(stopped[0], signal.SIGCONT)
    first = harness.notes.run_facts(job.job_id)[0]["token"]
    assert job.result(30) == first


def test_a_late_failure_does_not_disturb_the_attempt_that_took_over(
    harness: ServerHarness, start_worker: Callable[..., Worker], stopped: list[int]
) -> None:
    job = harness.act("gate then fail", times=1, gate="paused", value=2)
    one = start_worker("one", concurrency=1)
    stopped.append(await_start(harness, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1)
    assert job.result(30) == 2
    harness.open_gate("paused")
    os.kill(stopped[0], signal.SIGCONT)
    one.await_log("the outcome of this attempt is dropped")
    harness.await_quiet()
    assert job.state() is State.COMPLETED
    assert harness.event_names(job) == TAKEN_OVER
    assert harness.letters() == []


# --- held duplicates --------------------------------------------------------------------------


def test_duplicates_of_a_running_job_wait_in_the_delay_store_and_not_in_a_worker(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act(gate="held", value=1)
    key = next(key for key in harness.queue_keys if harness.broker.llen(key))
    (message,) = harness.broker.lrange(key, 0, -1)
    start_worker(concurrency=2)
    await_start(harness, job)
    for _ in range(3):
        harness.broker.lpush(key, message)
    eventually(
        lambda: harness.delayed() == 1 and not harness.queued(), "one waiting, collapsed of 3"
    )
    eventually(lambda: harness.unacked() == 1, "only the running one in the worker")
    # A slot is free: the duplicates hold none.
    assert harness.act(value=2).result(30) == 2
    harness.open_gate("held")
    assert job.result(30) == 1
    harness.await_quiet()
    assert harness.runs(job) == 1


def test_a_replacement_that_waits_keeps_its_place_beside_the_message_of_the_task_before(
    harness: ServerHarness,
) -> None:
    """Both may come without a stamp; the job is what replaced the task, and must not be lost."""
    publisher = RedisPublisher(harness.settings, harness.broker)
    raw = RawMessage(body=b"[]", headers={"task": "other"}, properties={})
    due_us = harness.yard.records.now_us() + us_of(600)
    for stamp in (Stamp(0, nesting=1), Stamp(0), Stamp(0, nesting=1)):
        publisher.publish_later(
            raw, queue="exec", priority=None, job_id="job", stamp=stamp, due_us=due_us
        )
    assert harness.delayed() == 2


# --- what a dead worker had begun -------------------------------------------------------------


@pytest.fixture(params=["redis", "rabbitmq"])
def either(request: pytest.FixtureRequest, servers: Servers) -> Settings:
    """Both brokers; a lease that outlasts the time in which a message comes back."""
    urls = {"broker_url": servers.rabbitmq_url()} if request.param == "rabbitmq" else {}
    return fresh_settings(servers.valkey_url(), lease_s=LONG_LEASE_S, **urls)


def come_back(settings: Settings, queue: str) -> None:
    """Have the broker mark the only message of a queue as delivered before."""
    with connection(settings) as opened:
        message = Queue(settings.broker_name(queue), channel=opened.default_channel).get()
        assert message is not None
        message.requeue()


def begin_and_die(harness: ServerHarness, job: JobHandle) -> None:
    """A worker has begun `job` and is gone: its lease runs, nothing renews it."""
    record = job.record()
    answer = harness.yard.records.attempts.begin(
        job.job_id,
        Stamp(record.epoch),
        holder="dead",
        worker="dead@host",
        process="dead@host",
        job_type="exec_act",
        queue=record.queue,
    )
    assert isinstance(answer, Run)


def test_a_dead_workers_job_goes_before_what_came_later_as_soon_as_its_lease_is_over(
    either: Settings, start_worker: Callable[..., Worker]
) -> None:
    harness = ServerHarness(either)
    worker = start_worker(settings=either, concurrency=1, queues=("exec",))
    worker.await_log(" ready.")
    guard = harness.act(gate="guard", label="guard")
    await_start(harness, guard)
    left = harness.act(label="left")
    come_back(either, "exec")
    later = [harness.act(gate=f"{n}", label=f"{n}") for n in range(5)]
    begin_and_die(harness, left)
    harness.open_gate("guard")
    worker.await_log(
        f"job {left.job_id}: its message was delivered again while another attempt has the lease"
    )
    worker.await_log(f"job {left.job_id}: the lease of its earlier attempt has ended")
    for number in range(5):
        harness.open_gate(f"{number}")
    for job in (left, *later):
        harness.await_state(job, State.COMPLETED)
    order = harness.notes.order()
    # What the worker had taken meanwhile stays before it: one that runs and one for its place.
    assert order.index("left") <= 3, order
    assert harness.event_names(left) == TAKEN_OVER
    harness.close()


def test_a_message_that_came_back_waits_in_the_delay_store_once_the_other_attempt_renewed(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act(gate="alive", value=1)
    one = start_worker("one")
    await_start(harness, job)
    two = start_worker("two")
    awaited = f"job {job.job_id}: its message was delivered again"
    eventually(lambda: awaited in one.log + two.log, "the second delivery of the running job")
    eventually(lambda: harness.delayed() == 1, "the second delivery in the delay store")
    eventually(lambda: harness.unacked() == 0, "no worker holds the duplicate")
    harness.open_gate("alive")
    assert job.result(30) == 1
    harness.await_quiet()
    assert harness.runs(job) == 1


def test_a_worker_that_drains_gives_back_at_once_what_waits_for_a_lease(
    either: Settings, start_worker: Callable[..., Worker]
) -> None:
    """Its longest job may run for hours, and the dead worker's must not wait for that."""
    harness = ServerHarness(either)
    one = start_worker("one", settings=either, concurrency=2, queues=("exec",))
    one.await_log(" ready.")
    long, short = harness.act(gate="long"), harness.act(gate="short")
    await_start(harness, long)
    await_start(harness, short)
    left = harness.act(value=1)
    come_back(either, "exec")
    begin_and_die(harness, left)
    harness.open_gate("short")
    one.await_log(
        f"job {left.job_id}: its message was delivered again while another attempt has the lease"
    )
    one.kill(signal.SIGTERM)
    start_worker("two", settings=either, concurrency=1, queues=("exec",))
    assert left.result(30) == 1
    assert long.state() is State.RUNNING
    harness.open_gate("long")
    harness.await_state(long, State.COMPLETED)
    assert harness.event_names(left) == TAKEN_OVER
    harness.close()
