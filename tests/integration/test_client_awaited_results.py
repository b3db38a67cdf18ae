"""Results that coroutines await: one subscription for all of them, and the errors of `result`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
import redis

from servers import Servers
from support.proxy import Proxy, through
from support.waiting import eventually, soon
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle, result_listener
from taskyard.errors import (
    DeadLettered,
    JobFailed,
    NotFound,
    ResultTimeout,
    ServerRefused,
    ServerUnreachable,
    TaskyardError,
)

LATER = {"max_retries": 0}
# What a slow machine may take beyond the promise.
SLACK_S = 2.0


@pytest.fixture(scope="module")
def direct(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHarness]:
    """Past the proxy, with a worker."""
    opened = ServerHarness(fresh_settings(servers.valkey_url(), publish_timeout_s=2))
    with Worker(opened.settings, tmp_path_factory.mktemp("worker"), queues=("exec",)).launch():
        yield opened
    opened.close()


@pytest.fixture
def harness(direct: ServerHarness, proxy: Proxy) -> Iterator[ServerHarness]:
    """The same behind the proxy, with a client of this test's own."""
    url = through(proxy, direct.settings.need_redis_url())
    urls = {"redis_url": url, "broker_url": url}
    opened = ServerHarness(direct.settings.model_copy(update=urls))
    yield opened
    proxy.flow()
    opened.close_connections()


@pytest.fixture(autouse=True)
def without_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_listener, "_POLL_AFTER_S", 3_600.0)


def subscriptions(harness: ServerHarness) -> list[int]:
    """How many channels each connection listens to that has come since the test began.

    The server is shared: a client of an earlier test may not have been collected yet.
    """
    return [
        int(client["sub"])
        for client in harness.redis.client_list()
        if int(client["sub"]) and int(client["id"]) not in BEFORE
    ]


BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def _clients_before(servers: Servers) -> None:
    with redis.Redis.from_url(servers.valkey_url()) as client:
        BEFORE.clear()
        BEFORE.update(int(each["id"]) for each in client.client_list() if int(each["sub"]))


async def listens(harness: ServerHarness, count: int = 1) -> None:
    await soon(lambda: sum(subscriptions(harness)) >= count, "a subscription")


async def all_of(jobs: list[JobHandle], timeout_s: float = 60) -> list[Any]:
    calls = (job.aresult(timeout_s) for job in jobs)
    return await asyncio.gather(*calls, return_exceptions=True)


def test_many_results_are_awaited_through_one_subscription(harness: ServerHarness) -> None:
    jobs = [harness.act(value=number, gate="open sesame") for number in range(120)]

    async def scenario() -> list[Any]:
        awaited = asyncio.ensure_future(all_of(jobs))
        await listens(harness, len(jobs))
        assert len(subscriptions(harness)) == 1
        harness.open_gate("open sesame")
        return await awaited

    assert asyncio.run(scenario()) == list(range(120))
    eventually(lambda: not subscriptions(harness), "nothing is listened to any more")


def test_what_has_ended_already_is_found_by_looking(harness: ServerHarness) -> None:
    job = harness.act(value=3)
    harness.await_end(job)
    assert asyncio.run(job.aresult(0)) == 3
    assert asyncio.run(job.aresult()) == 3


def test_a_job_may_be_awaited_by_many_and_in_many_loops(harness: ServerHarness) -> None:
    jobs = [harness.act(value=number, gate="many") for number in range(10)]

    async def scenario() -> list[Any]:
        awaited = asyncio.ensure_future(all_of(jobs * 3))
        in_a_thread = asyncio.to_thread(lambda: asyncio.run(all_of(jobs)))
        other = asyncio.ensure_future(in_a_thread)
        await listens(harness, len(jobs))
        harness.open_gate("many")
        return [*await awaited, *await other]

    assert asyncio.run(scenario()) == [*range(10)] * 4


def test_a_dead_letter_is_told_at_once_and_not_by_the_poll(harness: ServerHarness) -> None:
    job = harness.act("gate then fail", gate="dead", policy=LATER)

    async def scenario() -> Any:
        awaited = asyncio.ensure_future(all_of([job]))
        await listens(harness)
        harness.open_gate("dead")
        return await awaited

    (error,) = asyncio.run(scenario())
    assert isinstance(error, DeadLettered)
    assert "flaky: told to fail after the gate" in str(error)


def test_whoever_waits_for_a_replay_waits_on(harness: ServerHarness) -> None:
    job = harness.act("fail", policy=LATER)
    harness.await_end(job)
    with pytest.raises(ResultTimeout, match=r"is still dead_lettered after 0\.1 s"):
        asyncio.run(job.aresult(0.1, wait_for_replay=True))


def test_an_end_that_nothing_tells_of_is_found_by_the_poll(
    harness: ServerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_listener, "_POLL_AFTER_S", 0.0)
    job = harness.act(job_type="plan_act")

    async def scenario() -> Any:
        awaited = asyncio.ensure_future(all_of([job]))
        await listens(harness)
        harness.redis.hset(harness.yard.records.keys.record(job.job_id), "state", "cancelled")
        return await awaited

    (error,) = asyncio.run(scenario())
    assert isinstance(error, JobFailed)
    assert f"job {job.job_id} is cancelled" in str(error)


@pytest.mark.parametrize("timeout", [0, 0.05, timedelta(seconds=0.05)])
def test_a_result_that_takes_longer_than_the_timeout_says_how_to_look(
    harness: ServerHarness, timeout: float | timedelta
) -> None:
    job = harness.act(job_type="plan_act")
    seconds = 0.05 if timeout else 0
    with pytest.raises(ResultTimeout) as caught:
        asyncio.run(job.aresult(timeout))
    assert str(caught.value) == (
        f"job {job.job_id} is still accepted after {seconds:g} s. "
        f"See: taskyard jobs show {job.job_id}"
    )


def test_a_job_that_was_never_enqueued_has_no_record(harness: ServerHarness) -> None:
    with pytest.raises(NotFound, match="there is no record of job no-such-job"):
        asyncio.run(harness.yard.job("no-such-job").aresult())


def test_a_record_that_is_none_fails_those_alone_who_await_it(harness: ServerHarness) -> None:
    odd, fine = harness.act(job_type="plan_act"), harness.act(job_type="plan_act")
    harness.redis.delete(harness.yard.records.keys.record(odd.job_id))
    harness.redis.lpush(harness.yard.records.keys.record(odd.job_id), "no hash")
    refused, late = asyncio.run(all_of([odd, fine], 0.2))
    assert isinstance(refused, ServerRefused)
    assert "to be a hash, got a list" in str(refused)
    assert isinstance(late, ResultTimeout)


# --- in trouble ---------------------------------------------------------------------------------


def test_a_subscription_that_is_cut_is_made_again_and_misses_no_end(
    harness: ServerHarness, proxy: Proxy
) -> None:
    jobs = [harness.act(value=number, gate="cut") for number in range(40)]

    async def scenario() -> list[Any]:
        awaited = asyncio.ensure_future(all_of(jobs))
        await listens(harness, len(jobs))
        harness.open_gate("cut")
        for _ in range(10):
            await asyncio.to_thread(proxy.cut)
            await asyncio.sleep(0.02)
        return await awaited

    assert asyncio.run(scenario()) == list(range(40))


def test_a_silent_server_is_told_when_the_time_is_over(
    harness: ServerHarness, proxy: Proxy
) -> None:
    job = harness.act(job_type="plan_act")
    proxy.swallow()
    began = monotonic()
    with pytest.raises(ResultTimeout) as caught:
        asyncio.run(job.aresult(0.2))
    assert monotonic() - began < 0.2 + 1 + 2, (
        "a second later at most, and what a slow machine takes"
    )
    assert str(caught.value) == (
        f"job {job.job_id}: Redis did not answer when 0.2 s were over, so it is unknown whether "
        "the job has ended. Ask again once Redis answers; `taskyard check` shows whether it does"
    )


def test_a_longer_wait_raises_that_the_server_does_not_answer(
    harness: ServerHarness, proxy: Proxy
) -> None:
    jobs = [harness.act(job_type="plan_act"), harness.act(job_type="plan_act")]
    proxy.swallow()
    errors = asyncio.run(all_of(jobs))
    assert [type(error) for error in errors] == [ServerUnreachable] * 2
    assert errors[0] is not errors[1]
    proxy.flow()
    with pytest.raises(ResultTimeout, match="is still accepted"):
        asyncio.run(jobs[0].aresult(0.1))


def test_a_connection_that_stands_and_says_nothing_is_made_anew(
    harness: ServerHarness, direct: ServerHarness, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_listener, "_QUIET_S", 0.1)
    job = harness.act(value=7, gate="stalled")

    async def scenario() -> Any:
        awaited = asyncio.ensure_future(all_of([job]))
        await listens(harness)
        proxy.stall()
        direct.open_gate("stalled")
        return await awaited

    assert asyncio.run(scenario()) == [7]


def test_awaiting_may_be_cancelled_and_leaves_nothing(harness: ServerHarness) -> None:
    job = harness.act(job_type="plan_act")

    async def scenario() -> None:
        async with asyncio.timeout(0.2):
            await job.aresult()

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    eventually(lambda: not subscriptions(harness), "nothing is listened to any more")


def test_closing_the_client_ends_what_is_awaited(harness: ServerHarness) -> None:
    job = harness.act(job_type="plan_act")

    async def scenario() -> Any:
        awaited = asyncio.ensure_future(all_of([job]))
        await listens(harness)
        await asyncio.to_thread(harness.yard.close)
        return await awaited

    (error,) = asyncio.run(scenario())
    assert type(error) is TaskyardError
    assert str(error) == (
        "the client was closed while a result was awaited; close it after its last call"
    )
