"""A producer that wants its jobs on a replica before it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import pytest
from redis import Redis

from servers import LOOPBACK, RedisServer
from support.kill_switches import turn_on
from support.waiting import SOON_S, eventually, soon
from support.yard import catalogue, fresh_settings
from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.errors import InvalidSettings, KillSwitchOn, NotReplicated, PublishFailed
from taskyard.jobs.states import State
from taskyard.records import Records, bulk_admission
from taskyard.store import Script, call_replicated
from taskyard.switches import SwitchField

PATIENCE_S = 1.0


@dataclass
class Pair:
    """A primary and its replica, and a client that waits for the replica."""

    primary: RedisServer
    replica: RedisServer
    yard: Taskyard
    replica_pid: int

    def on_replica(self, job_id: str) -> State:
        with Redis.from_url(self.replica.url) as client:
            return Records(client, self.yard.settings).read(job_id).state


@pytest.fixture(scope="module")
def servers_in_a_row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    folder = tmp_path_factory.mktemp("replicas")
    primary = RedisServer(folder / "primary", ["--repl-diskless-sync-delay", "0"])
    primary.start()
    replica = RedisServer(folder / "replica", ["--replicaof", f"{LOOPBACK} {primary.port}"])
    replica.start()
    yield [primary, replica]
    replica.stop()
    primary.stop()


@pytest.fixture
def pair(servers_in_a_row: list[RedisServer]) -> Iterator[Pair]:
    primary, replica = servers_in_a_row
    settings = fresh_settings(primary.url, replicas=1, publish_timeout_s=PATIENCE_S)
    with Redis.from_url(primary.url) as client, Taskyard(settings, catalogue()) as yard:

        def follows() -> bool:
            # Without a write of its own WAIT counts a replica that still loads its first copy.
            client.set(f"{settings.namespace}:follows", 1)
            return bool(client.execute_command("WAIT", 1, 100) == 1)

        eventually(follows, "the replica follows")
        yield Pair(primary, replica, yard, replica.pid)


@pytest.fixture
def silent(pair: Pair) -> Iterator[Pair]:
    """The replica is stopped in the middle of its work; it goes on at the end."""
    os.kill(pair.replica_pid, signal.SIGSTOP)
    yield pair
    os.kill(pair.replica_pid, signal.SIGCONT)


@pytest.fixture
def gathered() -> threading.Event:
    """A script is under way until it is set."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def stops_after_a_script(
    pair: Pair, gathered: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[int]]:
    """The replica confirms one script, and is stopped before the second; the scripts so far."""
    scripts: list[int] = []
    real = bulk_admission.call_replicated

    def counted(*arguments: Any, **options: Any) -> Any:
        scripts.append(1)
        if len(scripts) == 2:
            os.kill(pair.replica_pid, signal.SIGSTOP)
        answer = real(*arguments, **options)
        gathered.wait(SOON_S)
        return answer

    monkeypatch.setattr(bulk_admission, "call_replicated", counted)
    yield scripts
    os.kill(pair.replica_pid, signal.SIGCONT)


def test_what_enqueue_returns_is_on_the_replica(pair: Pair) -> None:
    for number in range(50):
        job = pair.yard.enqueue("exec_act", {"do": "return"}, idempotency_key=f"key {number}")
        assert pair.on_replica(job.job_id) is State.ACCEPTED


def test_so_is_all_that_enqueue_many_returns(pair: Pair) -> None:
    requests = [EnqueueRequest(job_type="exec_act", payload={"do": "return"}) for _ in range(120)]
    states = {pair.on_replica(job.job_id) for job in pair.yard.enqueue_many(requests)}
    assert states == {State.ACCEPTED}


def test_a_flushed_script_cache_costs_nothing(pair: Pair) -> None:
    with Redis.from_url(pair.primary.url) as client:
        client.script_flush()
    job = pair.yard.enqueue("exec_act", {"do": "return"})
    assert pair.on_replica(job.job_id) is State.ACCEPTED


def test_a_silent_replica_is_told_in_time_and_a_repeat_waits_again(silent: Pair) -> None:
    started = monotonic()
    with pytest.raises(NotReplicated) as caught:
        silent.yard.enqueue("exec_act", {"do": "return"}, idempotency_key="pay")
    assert monotonic() - started < 3 * PATIENCE_S
    assert str(caught.value) == (
        "1 job is enqueued, but within 1 s 0 of 1 replica confirmed it: a failover now could lose "
        "it. Enqueue again with the same idempotency key: that waits again and creates no second "
        "job"
    )
    # The repeat changes nothing on the primary, and is no less careful for that.
    with pytest.raises(NotReplicated):
        silent.yard.enqueue("exec_act", {"do": "return"}, idempotency_key="pay")


def test_enqueue_many_tells_which_jobs_no_replica_has_and_what_would_double(silent: Pair) -> None:
    keyed = [None, "pay", None]
    requests = [
        EnqueueRequest(job_type="exec_act", payload={"do": "return"}, idempotency_key=key)
        for key in keyed
    ]
    with pytest.raises(NotReplicated) as caught:
        silent.yard.enqueue_many(requests)
    error = caught.value
    assert (error.confirmed, error.wanted, len(error.job_ids)) == (0, 1, 3)
    assert error.unkeyed == (error.job_ids[0], error.job_ids[2])
    assert str(error) == (
        "3 jobs are enqueued, but within 1 s 0 of 1 replica confirmed it: a failover now could "
        "lose them. Enqueue again with the same idempotency key: that waits again and creates no "
        "second job. Do not enqueue jobs without an idempotency key again, they would run twice: "
        f"{error.job_ids[0]}, {error.job_ids[2]}. After a failover search them "
        "with: taskyard jobs show"
    )
    with Redis.from_url(silent.primary.url) as client:
        records = Records(client, silent.yard.settings)
        assert {records.read(job_id).state for job_id in error.job_ids} == {State.ACCEPTED}


def test_a_call_of_several_scripts_names_every_request_that_no_replica_is_known_to_have(
    pair: Pair, stops_after_a_script: list[int]
) -> None:
    requests = [
        EnqueueRequest(
            job_type="exec_act", payload={"do": "return"}, idempotency_key=f"many {number}"
        )
        for number in range(120)
    ]
    with pytest.raises(NotReplicated) as caught:
        pair.yard.enqueue_many(requests)
    error = caught.value
    assert (error.requests, error.not_enqueued) == (tuple(range(50, 120)), tuple(range(100, 120)))
    assert len(error.job_ids) == 50
    assert str(error).endswith(
        ". The requests 1 to 50 of the call are confirmed; the requests 101 to 120 are not "
        "enqueued, enqueue them"
    )
    os.kill(pair.replica_pid, signal.SIGCONT)
    again = pair.yard.enqueue_many(requests)
    assert [job.created for job in again] == [False] * 100 + [True] * 20
    assert [job.job_id for job in again[50:100]] == list(error.job_ids)


def test_what_a_kill_switch_refuses_waits_for_no_replica(silent: Pair) -> None:
    with Redis.from_url(silent.primary.url) as client:
        turn_on(client, silent.yard.settings.namespace, SwitchField.kill("all"))
    started = monotonic()
    with pytest.raises(KillSwitchOn):
        silent.yard.enqueue("exec_act", {"do": "return"})
    with pytest.raises(KillSwitchOn):
        silent.yard.enqueue_many([EnqueueRequest(job_type="exec_act", payload={"do": "return"})])
    assert monotonic() - started < PATIENCE_S


def test_a_call_of_which_a_switch_refuses_some_names_them_with_what_no_replica_has(
    silent: Pair,
) -> None:
    with Redis.from_url(silent.primary.url) as client:
        turn_on(client, silent.yard.settings.namespace, SwitchField.kill("queue:plan"))
    requests = [
        EnqueueRequest(
            job_type="exec_act",
            payload={"do": "return"},
            queue="plan" if number % 10 == 1 else "exec",
            idempotency_key=f"some {number}",
        )
        for number in range(60)
    ]
    with pytest.raises(NotReplicated) as caught:
        silent.yard.enqueue_many(requests)
    error = caught.value
    refused = (1, 11, 21, 31, 41)
    assert error.not_enqueued == (*refused, *range(50, 60))
    assert error.requests[:45] == tuple(at for at in range(50) if at not in refused)
    assert len(error.job_ids) == 45
    assert str(error).endswith(
        ". The requests 2, 12, 22, 32, 42 and 51 to 60 are not enqueued, enqueue them"
    )


def test_calls_that_share_a_script_hear_of_the_replica_or_of_the_switch(
    pair: Pair, gathered: threading.Event, stops_after_a_script: list[int]
) -> None:
    with Redis.from_url(pair.primary.url) as client:
        turn_on(client, pair.yard.settings.namespace, SwitchField.kill("queue:plan"))
    gathered.clear()

    async def scenario() -> list[Any]:
        def call(queue: str) -> asyncio.Future[JobHandle]:
            return asyncio.ensure_future(
                pair.yard.aenqueue("exec_act", {"do": "return"}, queue=queue)
            )

        first = call("exec")
        await soon(lambda: stops_after_a_script, "a script under way")
        calls = [call(queue) for queue in ["exec", "plan"] * 10]
        await asyncio.sleep(0)
        gathered.set()
        return await asyncio.gather(first, *calls, return_exceptions=True)

    first, *errors = asyncio.run(scenario())
    assert first.created
    assert [type(error) for error in errors] == [NotReplicated, KillSwitchOn] * 10


def test_calls_that_share_a_script_are_on_the_replica_when_they_return(pair: Pair) -> None:
    async def scenario() -> list[JobHandle]:
        calls = [pair.yard.aenqueue("exec_act", {"do": "return"}) for _ in range(120)]
        return list(await asyncio.gather(*calls))

    states = {pair.on_replica(job.job_id) for job in asyncio.run(scenario())}
    assert states == {State.ACCEPTED}


def test_each_of_the_calls_that_share_a_script_hears_of_its_own_job(
    pair: Pair, gathered: threading.Event, stops_after_a_script: list[int]
) -> None:
    keys = [None, "pay", None, "ship"]
    gathered.clear()

    async def scenario() -> list[Any]:
        def call(key: str | None) -> asyncio.Future[JobHandle]:
            aenqueue = pair.yard.aenqueue("exec_act", {"do": "return"}, idempotency_key=key)
            return asyncio.ensure_future(aenqueue)

        first = call("the first")
        await soon(lambda: stops_after_a_script, "a script under way")
        calls = [call(key) for key in keys]
        await asyncio.sleep(0)
        gathered.set()
        return await asyncio.gather(first, *calls, return_exceptions=True)

    first, *errors = asyncio.run(scenario())
    assert first.created
    assert [type(error) for error in errors] == [NotReplicated] * 4
    assert [error.unkeyed == error.job_ids for error in errors] == [key is None for key in keys]
    assert len({error.job_ids for error in errors}) == 4
    assert all(str(error).startswith("1 job is enqueued, but within 1 s") for error in errors)
    with Redis.from_url(pair.primary.url) as client:
        records = Records(client, pair.yard.settings)
        found = [records.read(error.job_ids[0]).state for error in errors]
    assert found == [State.ACCEPTED] * 4


def test_calls_that_wait_too_long_for_those_before_them_are_not_sent(silent: Pair) -> None:
    async def scenario() -> list[Any]:
        # More than go ahead together.
        calls = [silent.yard.aenqueue("exec_act", {"do": "return"}) for _ in range(1_000)]
        return await asyncio.gather(*calls, return_exceptions=True)

    started = monotonic()
    errors = asyncio.run(scenario())
    assert monotonic() - started < 6 * PATIENCE_S
    assert isinstance(errors[0], NotReplicated)
    assert type(errors[-1]) is PublishFailed
    assert str(errors[-1]) == (
        "the job is not enqueued: its call waited 1 s behind earlier calls, which failed: "
        "0 of 1 replicas confirmed them. Enqueue it again, whether it has an idempotency key or not"
    )


def test_when_it_follows_again_the_repeat_finds_the_job(silent: Pair) -> None:
    with pytest.raises(NotReplicated):
        silent.yard.enqueue("exec_act", {"do": "return"}, idempotency_key="pay")
    os.kill(silent.replica_pid, signal.SIGCONT)
    job = silent.yard.enqueue("exec_act", {"do": "return"}, idempotency_key="pay")
    assert not job.created
    assert silent.on_replica(job.job_id) is State.ACCEPTED


def test_less_than_a_millisecond_does_not_wait_for_ever(silent: Pair) -> None:
    script = Script("return 7")
    with Redis.from_url(silent.primary.url, socket_timeout=PATIENCE_S) as client:
        answer = call_replicated(client, script, [], [], mark="mark", replicas=1, within_s=0.0001)
    assert answer == (7, 0)


def test_where_the_broker_is_another_server_it_is_refused_at_once() -> None:
    settings = fresh_settings("redis://127.0.0.1:1/0", replicas=1)
    apart = settings.model_copy(update={"broker_url": "amqp://127.0.0.1:2//"})
    with pytest.raises(InvalidSettings, match="counts replicas of a Redis that holds both"):
        Taskyard(apart, catalogue())
