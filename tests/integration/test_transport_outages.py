"""What happens to the server while a worker consumes: it is told, it passes, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from servers import RedisServer
from support.handlers import Notes
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.settings import Settings

JOBS = 40


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    return fresh_settings(server.url)


@pytest.fixture
def worker(harness: ServerHarness, start_worker: Callable[..., Worker]) -> Worker:
    started = start_worker(queues=("exec",))
    started.await_log(" ready.")
    return started


def in_the_middle(harness: ServerHarness) -> list[JobHandle]:
    """Jobs of which two are at work, waiting at a gate, and the others behind them."""
    jobs = [harness.act(gate="go") for _ in range(JOBS)]
    eventually(lambda: len(harness.notes.order()) >= 2, "two are at work")
    return jobs


def assert_all_end(harness: ServerHarness, worker: Worker, jobs: list[JobHandle]) -> None:
    harness.open_gate("go")
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-4000:]
    harness.await_quiet()
    ends = [event["job"] for event in harness.events() if event["event"] == "complete"]
    assert sorted(ends) == sorted(job.job_id for job in jobs)
    assert worker.running


def test_killed_connections_are_made_again(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    with Redis.from_url(server.url) as client:
        for _ in range(3):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert_all_end(harness, worker, jobs)


def test_a_restarted_server_is_found_again(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    server.stop()
    worker.await_log("Connection to broker lost")
    server.start()
    assert_all_end(harness, worker, jobs)


def test_a_server_that_turned_read_only_is_waited_for(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    with Redis.from_url(server.url) as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.replicaof("127.0.0.1", 1)
        redis_role = harness.redis.role()
        assert redis_role[0] in (b"slave", "slave")
        worker.await_log("read only replica")
        client.replicaof("NO", "ONE")
    assert_all_end(harness, worker, jobs)


def test_a_restarted_redis_is_no_death_of_the_job_it_cut_off(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    job = harness.act(gate="go")
    eventually(lambda: harness.runs(job) == 1, "the first start")
    server.stop()
    # However long it is away, it is looked for every two seconds.
    patient = "Trying again in 2.00 seconds"
    eventually(lambda: worker.log.count(patient) >= 2, "two waits of 2 s", why=lambda: worker.log)
    server.start()
    eventually(lambda: harness.runs(job) == 2, "it runs again", within_s=60, why=lambda: worker.log)
    # The one that runs now; one that was cut off and counted would be the second.
    assert job.record().number("deaths") == 1
    harness.open_gate("go")
    assert harness.await_end(job) is State.COMPLETED


def test_a_full_server_is_waited_for(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        worker.await_log("the Redis consumer's heartbeat was not written")
        client.config_set("maxmemory", 0)
    assert_all_end(harness, worker, jobs)


def test_work_that_is_done_waits_for_room_and_is_not_done_again(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    with Redis.from_url(server.url) as client, client.pipeline() as pipe:
        # In one step: the gate opens, and there is no room left for what comes of it.
        Notes(pipe, harness.settings.namespace).open_gate("go")
        pipe.config_set("maxmemory", 1)
        pipe.execute()
        worker.await_log("Redis did not answer in step 'finish'")
        client.config_set("maxmemory", 0)
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-4000:]
        assert harness.runs(job) == 1
    harness.await_quiet()
    assert worker.running


def test_a_flushed_script_cache_is_filled_again_under_a_running_worker(
    harness: ServerHarness, worker: Worker, server: RedisServer
) -> None:
    jobs = in_the_middle(harness)
    with Redis.from_url(server.url) as client:
        client.script_flush()
    assert_all_end(harness, worker, jobs)


def test_a_queue_key_of_another_type_is_told_while_other_levels_are_served(
    harness: ServerHarness, worker: Worker
) -> None:
    urgent = list_key(harness.settings, "exec")
    harness.broker.set(urgent, "not a list")
    jobs = [harness.act(priority=2) for _ in range(5)]
    worker.await_log("Nothing is lost meanwhile; move the key with RENAME")
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED
    harness.broker.delete(urgent)
    assert harness.await_end(harness.act(priority=5)) is State.COMPLETED
    assert worker.running


def test_a_worker_starts_where_a_queue_key_is_of_another_type(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    urgent = list_key(harness.settings, "exec")
    harness.broker.set(urgent, "not a list")
    worker = start_worker(queues=("exec",))
    worker.await_log("Nothing is lost meanwhile; move the key with RENAME")
    assert harness.await_end(harness.act(priority=2)) is State.COMPLETED
    harness.broker.delete(urgent)


@pytest.mark.parametrize(
    "raw",
    [b"hello", b"{", b"[1]", b'{"a": 1}', b"\x80\x04\x95", b"x" * 2_000_000],
    ids=["text", "cut", "a list", "no message", "binary", "huge"],
)
def test_raw_junk_becomes_a_letter_and_the_worker_goes_on(
    harness: ServerHarness, worker: Worker, raw: bytes
) -> None:
    harness.broker.lpush(list_key(harness.settings, "exec"), raw)
    eventually(harness.letters, "a letter", why=lambda: worker.log[-4000:])
    assert harness.await_end(harness.act()) is State.COMPLETED
    harness.await_quiet()
    assert [letter["category"] for letter in harness.letters()] == ["undecodable"]
    assert worker.running
