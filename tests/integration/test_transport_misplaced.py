"""A key of ours holds another type: it is named, the rest is served, nothing is lost or hot."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from servers import RedisServer
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings, letters_key, list_key
from taskyard.client import JobHandle
from taskyard.errors import ServerRefused
from taskyard.jobs.states import State
from taskyard.settings import Settings

pytestmark = pytest.mark.slow

WATCHED_S = 3.0
# An idle worker of two processes sends about 8 commands a second (promoter, heartbeat, sweep).
COMMANDS, EVENTS = 400, 60


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    return fresh_settings(server.url, lease_s=2)


@pytest.fixture
def worker(harness: ServerHarness, start_worker: Callable[..., Worker]) -> Worker:
    started = start_worker(queues=("exec", "plan"))
    started.await_log(" ready.")
    return started


def misplace(harness: ServerHarness, key: str) -> None:
    """Put a string where `key` was: whatever it held is the fault's own damage."""
    pipe = harness.redis.pipeline()
    pipe.delete(key)
    pipe.set(key, "not what it should be")
    pipe.execute()


def commands(harness: ServerHarness) -> int:
    return int(harness.redis.info("stats")["total_commands_processed"])


def assert_calm(harness: ServerHarness, worker: Worker) -> None:
    """For three seconds neither the server nor the log is flooded, and the worker lives."""
    asked, lines_before, until = (
        commands(harness),
        worker.log.count("\n["),
        time.monotonic() + WATCHED_S,
    )
    eventually(lambda: time.monotonic() > until, "time passes")
    assert commands(harness) - asked < COMMANDS
    assert worker.log.count("\n[") - lines_before < EVENTS, worker.log[-6000:]
    assert worker.running


def assert_logged(worker: Worker, key: str) -> None:
    """The log names the key and how to free it without losing what it holds."""
    worker.await_log(f"expected the key {key!r} to be a ")
    assert f"RENAME {key} {key}.kept" in worker.log


def assert_served(harness: ServerHarness, worker: Worker) -> None:
    job = harness.act(job_type="plan_act", value="served meanwhile")
    assert harness.await_end(job) is State.COMPLETED, worker.log[-6000:]


def mend(harness: ServerHarness, key: str, *jobs: JobHandle) -> None:
    """As the message says; then everything ends and nothing is left."""
    harness.redis.rename(key, f"{key}.kept")
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED
    harness.await_quiet()


def held_at_gate(harness: ServerHarness) -> JobHandle:
    job = harness.act(gate="go", value="through the gate")
    eventually(lambda: harness.runs(job) == 1, "it is at work")
    return job


# -- what the transport keeps ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unacked", "unacked_index"])
def test_without_its_record_of_what_is_out_a_worker_takes_nothing_and_loses_nothing(
    harness: ServerHarness, worker: Worker, name: str
) -> None:
    key = f"{harness.settings.namespace}:{name}"
    misplace(harness, key)
    jobs = [harness.act(value=number) for number in range(5)]
    assert_logged(worker, key)
    assert_calm(harness, worker)
    assert harness.queued() == len(jobs)
    mend(harness, key, *jobs)


@pytest.mark.parametrize("name", ["unacked", "unacked_index"])
def test_a_job_that_ends_meanwhile_is_acknowledged_when_its_key_is_free_again(
    harness: ServerHarness, worker: Worker, name: str
) -> None:
    job = held_at_gate(harness)
    key = f"{harness.settings.namespace}:{name}"
    harness.redis.rename(key, f"{key}.before")
    harness.redis.set(key, "not what it should be")
    harness.open_gate("go")
    assert harness.await_end(job) is State.COMPLETED
    assert_logged(worker, key)
    assert_calm(harness, worker)
    harness.redis.rename(f"{key}.before", key)
    harness.await_quiet()
    assert "Connection to broker lost" not in worker.log
    assert harness.runs(job) == 1


def test_without_the_heartbeats_a_worker_works_on(harness: ServerHarness, worker: Worker) -> None:
    key = f"{harness.settings.namespace}:heartbeats"
    misplace(harness, key)
    assert_logged(worker, key)
    assert_served(harness, worker)
    assert_calm(harness, worker)
    mend(harness, key, harness.act())
    eventually(lambda: harness.redis.type(key) == b"hash", "the heartbeats are written again")


def test_a_mutex_is_written_over_and_what_is_no_heartbeat_is_passed_over(
    harness: ServerHarness, worker: Worker
) -> None:
    harness.redis.hset(f"{harness.settings.namespace}:heartbeats", "someone", "no heartbeat")
    harness.redis.hset(f"{harness.settings.namespace}:heartbeats", "another", "1 no heartbeat")
    mutex = f"{harness.settings.namespace}:unacked_mutex"
    harness.redis.delete(mutex)
    harness.redis.sadd(mutex, "not what it should be")
    eventually(lambda: harness.redis.type(mutex) in (b"string", b"none"), "it is written over")
    assert_served(harness, worker)
    harness.await_quiet()


def test_a_work_list_does_not_keep_the_others_waiting(
    harness: ServerHarness, worker: Worker
) -> None:
    key = list_key(harness.settings, "exec")
    misplace(harness, key)
    assert_logged(worker, key)
    assert_served(harness, worker)
    assert_calm(harness, worker)
    with pytest.raises(ServerRefused, match=f"RENAME {key} {key}.kept"):
        harness.act(priority=5, idempotency_key="again")
    harness.redis.rename(key, f"{key}.kept")
    again = harness.act(priority=5, idempotency_key="again")
    assert again.created
    assert harness.await_end(again) is State.COMPLETED


def test_what_cannot_go_back_to_its_list_goes_back_later(
    harness: ServerHarness, worker: Worker
) -> None:
    job = harness.act("kill", times=1, gate="go")
    out = f"{harness.settings.namespace}:unacked"
    eventually(lambda: harness.redis.hlen(out) == 1, "the worker has taken it from its list")
    key = list_key(harness.settings, "exec")
    urgent = [key + step for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
    for each in urgent:
        misplace(harness, each)
    harness.open_gate("go")
    eventually(lambda: harness.runs(job) >= 1, "it ran")
    assert_calm(harness, worker)
    for each in urgent:
        harness.redis.delete(each)
    assert harness.await_end(job) is State.COMPLETED, worker.log[-6000:]
    harness.await_quiet()


# -- the delay store -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["delayed", "delayed:messages"])
def test_a_retry_waits_for_the_delay_store_while_other_jobs_run(
    harness: ServerHarness, worker: Worker, name: str
) -> None:
    key = f"{harness.settings.namespace}:{name}"
    misplace(harness, key)
    # So long that a busy machine still has it wait, rather than published at once.
    wait = {"max_retries": 1, "backoff_strategy": "linear", "base_delay_ms": 2000, "jitter": False}
    job = harness.act("fail", times=1, job_type="plan_act", value="in the end", policy=wait)
    assert_logged(worker, key)
    assert_served(harness, worker)
    assert_calm(harness, worker)
    with pytest.raises(ServerRefused):
        harness.act(countdown=1, idempotency_key="later")
    mend(harness, key, job)
    assert harness.act(countdown=0.1, idempotency_key="later").created
    harness.await_quiet()


def test_a_due_message_whose_list_is_none_keeps_no_other_waiting(
    harness: ServerHarness, worker: Worker
) -> None:
    key = list_key(harness.settings, "exec")
    stuck = harness.act(countdown=0.5, priority=5)
    misplace(harness, key)
    after = harness.act(countdown=0.6, job_type="plan_act")
    assert harness.await_end(after) is State.COMPLETED, worker.log[-6000:]
    assert_logged(worker, key)
    assert_calm(harness, worker)
    mend(harness, key, stuck)


# -- records, ledger, letters ----------------------------------------------------------------------


def test_without_the_ledger_stream_no_job_begins_and_none_is_lost(
    harness: ServerHarness, worker: Worker
) -> None:
    held, waiting = held_at_gate(harness), harness.act(value="behind it")
    key = f"{harness.settings.namespace}:lifecycle"
    misplace(harness, key)
    harness.open_gate("go")
    assert_logged(worker, key)
    assert_calm(harness, worker)
    with pytest.raises(ServerRefused):
        harness.act()
    mend(harness, key, held, waiting)


def test_a_record_keeps_only_its_own_job_waiting(harness: ServerHarness, worker: Worker) -> None:
    held = held_at_gate(harness)
    key = harness.yard.records.keys.record(held.job_id)
    misplace(harness, key)
    harness.open_gate("go")
    assert_logged(worker, key)
    assert_served(harness, worker)
    assert_calm(harness, worker)
    mend(harness, key, held)


def test_a_result_is_written_over(harness: ServerHarness, worker: Worker) -> None:
    held = held_at_gate(harness)
    key = harness.yard.records.keys.result(held.job_id)
    harness.redis.sadd(key, "not what it should be")
    harness.open_gate("go")
    assert held.result(30) == "through the gate", worker.log[-4000:]
    harness.await_quiet()


def test_a_letter_waits_for_its_list_while_other_jobs_run(
    harness: ServerHarness, worker: Worker
) -> None:
    key = letters_key(harness.settings)
    misplace(harness, key)
    dying = harness.act("fail", job_type="exec_act")
    assert harness.await_end(dying) is State.DEAD_LETTERED
    assert_logged(worker, key)
    assert_served(harness, worker)
    assert_calm(harness, worker)
    harness.redis.rename(key, f"{key}.kept")
    eventually(lambda: harness.letters_of(dying), "its letter", why=lambda: worker.log[-6000:])
    harness.await_quiet()
    assert len(harness.letters_of(dying)) == 1
