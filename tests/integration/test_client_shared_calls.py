"""Concurrent enqueues of one client: they go together, and each has its own answer or error."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from servers import Servers
from support.proxy import SCRIPT, Cuts, Proxy, through
from support.waiting import eventually, soon
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle, shared_calls
from taskyard.errors import InvalidPayload, PublishFailed, ServerRefused, ServerUnreachable

FOR_EVER = 100_000


@pytest.fixture
def harness(proxy: Proxy, servers: Servers) -> Iterator[ServerHarness]:
    """Records and broker in one Redis behind the proxy."""
    opened = ServerHarness(
        fresh_settings(through(proxy, servers.valkey_url()), publish_timeout_s=2)
    )
    yield opened
    proxy.loss = None
    proxy.flow()
    opened.close()


@pytest.fixture
def apart(proxy: Proxy, servers: Servers) -> Iterator[ServerHarness]:
    """Records behind the proxy, the broker in another database, which the proxy does not touch."""
    broker_url = servers.valkey_url().removesuffix("/0") + "/1"
    url = through(proxy, servers.valkey_url())
    opened = ServerHarness(fresh_settings(url, broker_url=broker_url, publish_timeout_s=2))
    yield opened
    proxy.loss = None
    opened.close()


def call(harness: ServerHarness, key: str | None = None, **options: Any) -> Awaitable[JobHandle]:
    return harness.yard.aenqueue("exec_act", {"key": key}, idempotency_key=key, **options)


async def together(calls: Sequence[Awaitable[JobHandle]]) -> list[JobHandle | BaseException]:
    return await asyncio.gather(*calls, return_exceptions=True)


# --- one script for many ------------------------------------------------------------------------


def test_what_gathers_while_a_script_is_under_way_goes_fifty_a_script(
    harness: ServerHarness, proxy: Proxy
) -> None:
    harness.act()

    async def scenario() -> list[JobHandle | BaseException]:
        await call(harness)
        before = proxy.scripts
        proxy.swallow()
        first = asyncio.ensure_future(call(harness))
        await soon(lambda: proxy.held > 0, "a script under way")
        rest = [asyncio.ensure_future(call(harness, str(number))) for number in range(199)]
        await asyncio.sleep(0)
        proxy.flow()
        jobs = await together([first, *rest])
        # A script whose reply is late is asked for again; a call by itself would make it 200.
        assert 1 + 4 <= proxy.scripts - before < 20
        return jobs

    jobs = asyncio.run(scenario())
    assert all(isinstance(job, JobHandle) and job.created for job in jobs)
    assert harness.queued() == 2 + 200


def test_a_call_that_is_alone_goes_at_once_and_alone(harness: ServerHarness, proxy: Proxy) -> None:
    async def scenario() -> None:
        await call(harness)
        before = proxy.scripts
        for number in range(5):
            assert (await call(harness, str(number))).created
        assert proxy.scripts - before == 5

    asyncio.run(scenario())


def test_one_script_is_bounded_in_bytes_too(harness: ServerHarness, proxy: Proxy) -> None:
    payload = {"data": "x" * 200_000}

    async def scenario() -> None:
        await call(harness)
        before = proxy.scripts
        proxy.swallow()
        first = asyncio.ensure_future(call(harness))
        await soon(lambda: proxy.held > 0, "a script under way")
        rest = [asyncio.ensure_future(harness.yard.aenqueue("exec_act", payload)) for _ in range(8)]
        await asyncio.sleep(0)
        proxy.flow()
        await together([first, *rest])
        assert 1 + 2 <= proxy.scripts - before < 1 + 8

    asyncio.run(scenario())
    assert harness.queued() == 1 + 9


def test_keys_that_meet_in_one_script_are_told_apart(harness: ServerHarness) -> None:
    async def scenario() -> list[Any]:
        return await together([call(harness, str(number % 40)) for number in range(200)])

    jobs = asyncio.run(scenario())
    for key in range(40):
        same = jobs[key::40]
        assert len({job.job_id for job in same}) == 1
        assert sum(job.created for job in same) == 1
    assert harness.queued() == 40


def test_several_loops_and_threads_share_one_client(harness: ServerHarness) -> None:
    """Also loops that come one after the other, as `asyncio.run` makes them."""

    def in_a_loop(number: int) -> list[JobHandle]:
        async def scenario() -> list[JobHandle]:
            calls = [call(harness, f"{number}-{each}") for each in range(50)]
            return list(await asyncio.gather(*calls))

        return asyncio.run(scenario())

    def in_a_thread(number: int) -> list[JobHandle]:
        return [harness.act(idempotency_key=f"thread {number}-{each}") for each in range(20)]

    acts = [in_a_loop] * 8 + [in_a_thread] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: acts[at](at), range(len(acts))))
    jobs = [job for each in found for job in each]
    assert all(job.created for job in jobs)
    assert harness.queued() == len({job.job_id for job in jobs}) == 8 * 50 + 8 * 20


def test_threads_send_for_themselves_while_they_are_few_and_share_when_they_are_many(
    harness: ServerHarness, proxy: Proxy
) -> None:
    harness.act()
    before = proxy.scripts
    shared = harness.yard._calls
    proxy.swallow()
    with ThreadPoolExecutor(40) as pool:
        jobs = [pool.submit(harness.act, idempotency_key=str(number)) for number in range(40)]
        gathered = f"all but {shared_calls._LANES} share scripts"
        eventually(
            lambda: len(shared._waiting) + len(shared._under_way) == 40 - shared_calls._LANES,
            gathered,
        )
        proxy.flow()
    assert all(job.result().created for job in jobs)
    # How many calls a script finds waiting is up to the threads: far fewer scripts than calls.
    assert shared_calls._LANES < proxy.scripts - before <= shared_calls._LANES + 16
    assert harness.queued() == 1 + 40


# --- each its own error -------------------------------------------------------------------------


def test_a_request_that_is_refused_fails_none_of_its_neighbours(harness: ServerHarness) -> None:
    """The key of one record has another type: the script of all ends there."""

    async def scenario() -> list[Any]:
        bad = await call(harness, "bad")
        harness.redis.delete(harness.yard.records.keys.record(bad.job_id))
        harness.redis.lpush(harness.yard.records.keys.record(bad.job_id), "no hash")
        keys = [*map(str, range(60)), "bad", *map(str, range(60, 120))]
        return await together([call(harness, key) for key in keys])

    jobs = asyncio.run(scenario())
    error = jobs.pop(60)
    assert isinstance(error, ServerRefused)
    assert "to be a hash, got a list" in str(error)
    assert all(job.created for job in jobs)
    assert all(harness.event_names(job) == ["admit"] for job in jobs[::20])
    assert harness.queued() == 1 + 120


def test_a_request_that_is_wrong_in_itself_is_refused_before_it_is_sent(
    harness: ServerHarness,
) -> None:
    async def scenario() -> list[Any]:
        bad = harness.yard.aenqueue("exec_act", {"number": float("nan")})
        return await together([call(harness), bad, call(harness)])

    first, bad, last = asyncio.run(scenario())
    assert isinstance(bad, InvalidPayload)
    assert first.created
    assert last.created


def test_a_server_that_is_lost_is_told_to_each_call(harness: ServerHarness, proxy: Proxy) -> None:
    async def scenario() -> list[Any]:
        await call(harness)
        proxy.lose_replies(SCRIPT, times=FOR_EVER)
        return await together([call(harness) for _ in range(120)])

    errors = asyncio.run(scenario())
    # Those who waited too long behind the others are not sent any more, and say so.
    assert {type(error) for error in errors} <= {ServerUnreachable, PublishFailed}
    assert isinstance(errors[0], ServerUnreachable)
    assert len({id(error) for error in errors}) == len(errors), "each has an error of its own"


def test_whoever_waits_too_long_behind_a_lost_server_is_not_sent_and_says_so(
    harness: ServerHarness, proxy: Proxy
) -> None:
    async def scenario() -> tuple[list[Any], list[Any]]:
        await call(harness)
        proxy.swallow()
        first = asyncio.ensure_future(call(harness))
        await soon(lambda: proxy.held > 0, "a script under way")
        late = [asyncio.ensure_future(call(harness)) for _ in range(500)]
        errors = await together([first, *late])
        proxy.flow()
        again = await together([call(harness, "again")])
        return errors, again

    errors, (again,) = asyncio.run(scenario())
    assert isinstance(errors[0], ServerUnreachable)
    unsent = [error for error in errors if type(error) is PublishFailed]
    assert len(unsent) >= 300, "three scripts at most are ahead of their replies"
    assert str(unsent[0]).startswith(
        "the job is not enqueued: its call waited 2 s behind earlier calls, which failed: "
        "Redis at redis://"
    )
    assert str(unsent[0]).endswith("Enqueue it again, whether it has an idempotency key or not")
    assert again.created
    eventually(lambda: harness.queued() <= 2 + len(errors) - len(unsent), "none of those unsent")


# --- a call that is cancelled -------------------------------------------------------------------


def test_a_call_that_is_cancelled_before_its_script_is_not_sent(
    harness: ServerHarness, proxy: Proxy
) -> None:
    async def scenario() -> list[Any]:
        await call(harness)
        proxy.swallow()
        first = asyncio.ensure_future(call(harness))
        await soon(lambda: proxy.held > 0, "a script under way")
        calls = [asyncio.ensure_future(call(harness, str(number))) for number in range(10)]
        await asyncio.sleep(0)
        for each in calls[::2]:
            each.cancel()
        proxy.flow()
        return await together([first, *calls])

    _, *jobs = asyncio.run(scenario())
    assert all(isinstance(each, asyncio.CancelledError) for each in jobs[::2])
    assert all(job.created for job in jobs[1::2])
    assert harness.queued() == 2 + 5


def test_a_call_that_is_cancelled_under_way_disturbs_no_other(
    harness: ServerHarness, proxy: Proxy
) -> None:
    async def scenario() -> tuple[JobHandle, JobHandle]:
        await call(harness)
        proxy.swallow()
        cancelled = asyncio.ensure_future(call(harness, "k"))
        await soon(lambda: proxy.held > 0, "a script under way")
        cancelled.cancel()
        other = asyncio.ensure_future(call(harness, "other"))
        await asyncio.sleep(0)
        proxy.flow()
        return await other, await call(harness, "k")

    other, again = asyncio.run(scenario())
    assert other.created
    assert not again.created, "the cancelled call had made it"
    assert harness.queued() == 3


# --- connections that are cut in the middle -----------------------------------------------------


@pytest.mark.parametrize("replies_before", [0, 1, 2])
def test_a_lost_reply_is_asked_for_again_and_every_call_hears_the_truth(
    harness: ServerHarness, proxy: Proxy, replies_before: int
) -> None:
    known = harness.act(idempotency_key="7")

    async def scenario() -> list[Any]:
        await call(harness)
        proxy.lose_replies(SCRIPT, after=replies_before)
        jobs = await together([call(harness, str(number % 300)) for number in range(400)])
        # Several replies may have come as one.
        while not proxy.lost:
            assert not (await call(harness, "7")).created
        return jobs

    jobs = asyncio.run(scenario())
    assert jobs[7].job_id == known.job_id
    assert [job.created for job in jobs[:300]] == [number != 7 for number in range(300)]
    assert not any(job.created for job in jobs[300:])
    assert harness.queued() == 2 + 299
    assert all(harness.event_names(job) == ["admit"] for job in jobs[:300:30])


@pytest.mark.parametrize("place", ["harness", "apart"])
@pytest.mark.parametrize("seed", range(3))
def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(
    place: str, seed: int, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    harness: ServerHarness = request.getfixturevalue(place)
    cuts = Cuts(random.Random(seed), [proxy])  # noqa: S311 - it repeats

    async def scenario() -> list[list[Any]]:
        async def service(number: int) -> list[Any]:
            found = []
            for each in range(10):
                key = None if each % 3 == 0 else f"{number % 20}-{each}"
                found.append(await call(harness, key))
                cuts.after_an_answer()
            return found

        return list(await asyncio.gather(*(service(number) for number in range(40))))

    jobs = [job for each in asyncio.run(scenario()) for job in each]
    assert cuts.count > 5
    ids = {job.job_id for job in jobs}
    assert len(ids) == 40 * 4 + 20 * 6
    assert sum(job.created for job in jobs) == len(ids), "one call of each job hears `created`"
    assert harness.queued() == len(ids)
    assert all(harness.event_names(job_id) == ["admit"] for job_id in sorted(ids)[::25])
