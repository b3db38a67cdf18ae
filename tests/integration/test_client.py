"""The client against a real server: what is enqueued, how often, and what comes back."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from servers import Servers
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, catalogue, fresh_settings
from taskyard.broker import RedisPublisher
from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.errors import (
    DeadLettered,
    JobFailed,
    NotFound,
    PublishFailed,
    ResultTimeout,
    ServerUnreachable,
)
from taskyard.jobs.states import State
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

THREADS = 20
MANY = 5_000
NOBODY = "redis://:a-secret@127.0.0.1:1/0"


@pytest.fixture
def worked(harness: ServerHarness, start_worker: Callable[..., Worker]) -> ServerHarness:
    """A harness with a worker."""
    start_worker().await_log(" ready.")
    return harness


@pytest.fixture
def apart(servers: Servers) -> Iterator[ServerHarness]:
    """Records in one database of the server, the broker in another: two steps to enqueue."""
    url = servers.valkey_url()
    # A second delivery waits for the first one's lease.
    settings = fresh_settings(url, broker_url=url.removesuffix("/0") + "/1", lease_s=1)
    opened = ServerHarness(settings)
    yield opened
    opened.close()


def in_threads(act: Callable[[int], JobHandle]) -> list[JobHandle]:
    """What `act` returns in each of many threads that start together."""
    together = threading.Barrier(THREADS)

    def run(number: int) -> JobHandle:
        together.wait(10)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


# --- idempotency ------------------------------------------------------------------------------


def test_twenty_threads_with_one_key_create_one_job_that_runs_once(worked: ServerHarness) -> None:
    jobs = in_threads(lambda n: worked.act(value=n, idempotency_key="one"))
    assert len({job.job_id for job in jobs}) == 1
    assert Counter(job.created for job in jobs) == {True: 1, False: THREADS - 1}
    worked.await_end(jobs[0])
    worked.await_quiet()
    assert worked.runs(jobs[0]) == 1
    assert worked.event_names(jobs[0]) == ["admit", "begin", "complete"]


def test_twenty_clients_with_one_key_publish_one_message(
    settings: Settings, harness: ServerHarness
) -> None:
    clients = [Taskyard(settings, catalogue()) for _ in range(THREADS)]
    payload = {"value": 1}
    jobs = in_threads(lambda n: clients[n].enqueue("exec_act", payload, idempotency_key="one"))
    assert Counter(job.created for job in jobs) == {True: 1, False: THREADS - 1}
    assert harness.queued() == 1
    for client in clients:
        client.close()


def test_without_a_key_the_same_enqueues_are_many_jobs(harness: ServerHarness) -> None:
    jobs = in_threads(lambda n: harness.act(value=1))
    assert len({job.job_id for job in jobs}) == THREADS
    assert all(job.created for job in jobs)
    assert harness.queued() == THREADS


def test_one_key_of_two_job_types_is_two_jobs(harness: ServerHarness) -> None:
    one = harness.act(idempotency_key="k")
    two = harness.act(job_type="plan_act", idempotency_key="k")
    assert one.job_id != two.job_id
    assert two.created


def test_a_key_is_free_again_when_its_uniqueness_is_over(worked: ServerHarness) -> None:
    first = worked.act(idempotency_key="k", unique_for=0.2)
    worked.await_end(first)
    second = eventually(
        lambda: (job := worked.act(idempotency_key="k", value=2)).created and job, "a second life"
    )
    assert second.job_id == first.job_id
    assert second.result(30) == 2
    assert worked.runs(first) == 2


def test_a_key_stays_taken_while_its_job_lives_however_short_its_uniqueness(
    harness: ServerHarness,
) -> None:
    assert harness.act(idempotency_key="k", unique_for=0).created
    assert not harness.act(idempotency_key="k", unique_for=0).created
    assert harness.queued() == 1


# --- many -------------------------------------------------------------------------------------


def test_five_thousand_requests_come_back_in_their_order_with_duplicates_told(
    harness: ServerHarness,
) -> None:
    keys = [str(number % 4_000) for number in range(MANY)]
    requests = [
        EnqueueRequest(job_type="exec_act", payload={"label": key}, idempotency_key=key)
        for key in keys
    ]
    jobs = harness.yard.enqueue_many(requests)
    assert [job.created for job in jobs] == [True] * 4_000 + [False] * 1_000
    assert [job.job_id for job in jobs[4_000:]] == [job.job_id for job in jobs[:1_000]]
    assert jobs[17].job_id == harness.act(idempotency_key="17").job_id
    assert harness.queued() == 4_000
    assert len(harness.events()) == 4_000


def test_duplicates_inside_one_round_trip_are_told_apart(apart: ServerHarness) -> None:
    request = EnqueueRequest(job_type="exec_act", payload={}, idempotency_key="k")
    jobs = apart.yard.enqueue_many([request] * 3)
    assert [job.created for job in jobs] == [True, False, False]
    assert apart.queued() == 1


def test_many_are_served_in_the_order_of_the_requests(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    labels = [str(number) for number in range(50)]
    requests = [EnqueueRequest(job_type="exec_act", payload={"label": label}) for label in labels]
    harness.yard.enqueue_many(requests)
    start_worker(concurrency=1)
    eventually(lambda: len(harness.notes.order()) == 50, "all runs")
    assert harness.notes.order() == labels


def test_one_bad_request_among_many_sends_none(harness: ServerHarness) -> None:
    good = EnqueueRequest(job_type="exec_act", payload={})
    bad = EnqueueRequest(job_type="exec_act", payload={}, priority=9)
    with pytest.raises(Exception, match="priorities 1 to 5"):
        harness.yard.enqueue_many([good, bad])
    assert harness.queued() == 0


# --- time -------------------------------------------------------------------------------------


def test_a_countdown_waits_in_the_delay_store_and_then_runs(worked: ServerHarness) -> None:
    job = worked.act(countdown=0.8, value=3)
    assert (worked.delayed(), worked.queued(), job.state()) == (1, 0, State.ACCEPTED)
    assert job.result(30) == 3
    (begun,) = [event for event in worked.events(job) if event["event"] == "begin"]
    assert int(begun["at"]) - job.record().epoch >= 800_000


def test_a_countdown_may_be_a_timedelta(harness: ServerHarness) -> None:
    harness.act(countdown=timedelta(hours=1))
    assert harness.delayed() == 1


@pytest.mark.parametrize(
    "expires", [0.2, timedelta(seconds=0.2), datetime.now(UTC) - timedelta(seconds=1)]
)
def test_what_expires_before_its_start_is_a_dead_letter_and_never_runs(
    worked: ServerHarness, expires: datetime | timedelta | float
) -> None:
    job = worked.act(countdown=0.4, expires=expires)
    with pytest.raises(DeadLettered, match="expired: the message expired"):
        job.result(30)
    assert worked.runs(job) == 0
    (letter,) = eventually(lambda: worked.letters_of(job), "its letter")
    assert letter["category"] == "expired"


def test_what_starts_before_it_expires_runs(worked: ServerHarness) -> None:
    assert worked.act(expires=3600, value=1).result(30) == 1


# --- asyncio ----------------------------------------------------------------------------------


def test_asyncio_enqueues_without_holding_the_loop(worked: ServerHarness) -> None:
    async def all_at_once() -> list[JobHandle]:
        acts = [
            worked.yard.aenqueue("exec_act", {"value": number}, priority=5) for number in range(10)
        ]
        return list(await asyncio.gather(*acts))

    jobs = asyncio.run(all_at_once())
    assert [job.result(30) for job in jobs] == list(range(10))


# --- records and broker apart -----------------------------------------------------------------


def test_records_and_broker_in_two_databases_work_like_one(
    apart: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    start_worker(settings=apart.settings)
    plain, later = apart.act(value=1), apart.act(value=2, countdown=0.3)
    retried, dead = apart.act("fail", times=1, value=3), apart.act("fail")
    assert [job.result(30) for job in (plain, later, retried)] == [1, 2, 3]
    with pytest.raises(DeadLettered):
        dead.result(30)
    apart.await_quiet()
    assert len(apart.letters_of(dead)) == 1
    assert apart.broker.exists(f"{apart.settings.namespace}:lifecycle") == 0


def test_a_job_that_was_admitted_but_not_published_is_published_by_the_next_enqueue(
    apart: ServerHarness, monkeypatch: pytest.MonkeyPatch, start_worker: Callable[..., Worker]
) -> None:
    def fail(_: object, messages: Sequence[object]) -> list[PublishFailed]:
        return [PublishFailed("job k was not published: the broker went away") for _ in messages]

    with monkeypatch.context() as broken:
        broken.setattr(RedisPublisher, "publish_many", fail)
        with pytest.raises(PublishFailed, match="the broker went away"):
            apart.act(value=1, idempotency_key="k")
    assert apart.queued() == 0
    again = apart.act(value=1, idempotency_key="k")
    assert not again.created
    assert apart.queued() == 1
    assert not apart.act(value=1, idempotency_key="k").created
    assert apart.queued() == 1, "a confirmed job must not be published again"
    start_worker(settings=apart.settings)
    assert again.result(30) == 1
    assert apart.runs(again) == 1


def test_a_publication_whose_confirmation_was_lost_is_repeated_and_runs_once(
    apart: ServerHarness, monkeypatch: pytest.MonkeyPatch, start_worker: Callable[..., Worker]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RedisConnectionError("the records went away")

    with monkeypatch.context() as broken:
        broken.setattr(apart.yard.records, "confirm_many", fail)
        with pytest.raises(ServerUnreachable, match="the records went away"):
            apart.act(value=1, idempotency_key="k")
    again = apart.act(value=1, idempotency_key="k")
    assert apart.queued() == 2
    start_worker(settings=apart.settings)
    assert again.result(30) == 1
    apart.await_quiet()
    assert apart.runs(again) == 1
    assert apart.event_names(again) == ["admit", "begin", "complete"]


# --- results ----------------------------------------------------------------------------------


def test_a_result_that_takes_longer_than_the_timeout_says_how_to_look(
    harness: ServerHarness,
) -> None:
    job = harness.act()
    with pytest.raises(ResultTimeout) as raised:
        job.result(0.05)
    assert str(raised.value) == (
        f"job {job.job_id} is still accepted after 0.05 s. See: taskyard jobs show {job.job_id}"
    )


def test_a_timeout_of_zero_asks_once(worked: ServerHarness) -> None:
    job = worked.act(value=1)
    worked.await_end(job)
    assert job.result(0) == 1
    with pytest.raises(ResultTimeout, match="after 0 s"):
        worked.act(gate="never").result(timedelta(0))


def test_a_job_that_was_never_enqueued_has_no_record(harness: ServerHarness) -> None:
    with pytest.raises(NotFound, match="there is no record of job no-such-job"):
        harness.yard.job("no-such-job").result(0)


def test_an_expired_result_is_told_as_such(
    servers: Servers, start_worker: Callable[..., Worker]
) -> None:
    harness = ServerHarness(fresh_settings(servers.valkey_url(), result_ttl_s=1))
    start_worker(settings=harness.settings)
    job = harness.act(value=1)
    assert job.result(30) == 1
    key = harness.yard.records.keys.result(job.job_id)
    eventually(lambda: not harness.redis.exists(key), "the result's expiry")
    with pytest.raises(NotFound) as raised:
        job.result(0)
    assert str(raised.value) == (
        f"job {job.job_id} is completed, but its result has expired after 1 s "
        "(TASKYARD_RESULT_TTL_S)"
    )
    harness.close()


def test_a_dead_letter_is_told_at_once_unless_one_waits_for_its_replay(
    worked: ServerHarness,
) -> None:
    job = worked.act("fail", times=1, value="at last", policy={"max_retries": 0})
    with pytest.raises(DeadLettered, match="flaky: told to fail"):
        job.result(30)
    with pytest.raises(ResultTimeout, match="still dead_lettered"):
        job.result(0.05, wait_for_replay=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result, 30, wait_for_replay=True)
        replay(worked, job)
        assert waiting.result(30) == "at last"


def replay(harness: ServerHarness, job: JobHandle) -> None:
    """What the relay does for an operator's replay."""
    (letter,) = eventually(lambda: harness.letters_of(job), "its letter")
    record = job.record()
    opened = harness.yard.records.replay(
        job_id=job.job_id,
        epoch=record.epoch,
        generation=0,
        request_id="r",
        job_type="exec_act",
        queue="exec",
        priority=3,
    )
    harness.yard.publisher.publish(
        RawMessage.model_validate(letter["message"]),
        queue="exec",
        priority=3,
        job_id=job.job_id,
        stamp=Stamp(record.epoch, opened.generation),
    )


def test_a_job_that_an_operator_ended_is_told_as_failed(harness: ServerHarness) -> None:
    job = harness.act()
    harness.redis.hset(harness.yard.records.keys.record(job.job_id), "state", "cancelled")
    with pytest.raises(JobFailed, match=f"job {job.job_id} is cancelled"):
        job.result(0)


# --- servers that are away --------------------------------------------------------------------


def test_an_unreachable_redis_is_named_without_its_password() -> None:
    with Taskyard(fresh_settings(NOBODY), catalogue()) as yard:
        for act in (
            lambda: yard.enqueue("exec_act", {}),
            lambda: yard.enqueue_many([EnqueueRequest(job_type="exec_act", payload={})]),
            lambda: yard.job("j").state(),
            lambda: yard.job("j").result(0),
        ):
            with pytest.raises(ServerUnreachable) as raised:
                act()
            assert str(raised.value).startswith("Redis at redis://")
            assert "127.0.0.1:1/0 does not answer (" in str(raised.value)
            assert "correct TASKYARD_REDIS_URL" in str(raised.value)
            assert "a-secret" not in str(raised.value)


def test_an_unreachable_broker_is_told_though_the_records_answer(servers: Servers) -> None:
    settings = fresh_settings(servers.valkey_url(), broker_url=NOBODY)
    with Taskyard(settings, catalogue()) as yard:
        with pytest.raises(PublishFailed, match=r"was not published: Error .*connecting"):
            yard.enqueue("exec_act", {}, idempotency_key="k")
        yard.records.client.delete(*yard.records.client.keys(f"{settings.namespace}*"))


def test_a_client_that_is_closed_leaves_no_connection_behind(servers: Servers) -> None:
    settings = fresh_settings(servers.valkey_url())
    with ServerHarness(settings).redis as eyes:
        before = len(eyes.client_list())
        with Taskyard(settings, catalogue()) as yard:
            yard.enqueue("exec_act", {})
            assert yard.app.AsyncResult("j").state == "PENDING"
            assert len(eyes.client_list()) > before
        eventually(lambda: len(eyes.client_list()) <= before, "no connection more than before")
        eyes.delete(*eyes.keys(f"{settings.namespace}*"))
