"""Enqueueing under kill switches: each call hears of its own jobs, and nothing is half done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from amqp.exceptions import ChannelError
from celery import chain

from servers import Servers
from support.kill_switches import REASON, lift, turn_on
from support.proxy import SCRIPT, Proxy, through
from support.waiting import eventually
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.broker.connection import same_redis
from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.clock import redis_time_us
from taskyard.errors import KillSwitchOn, PublishFailed
from taskyard.jobs.states import State
from taskyard.switches import Mode, SwitchField

EXEC, PLAN = SwitchField.kill("queue:exec"), SwitchField.kill("queue:plan")
ALL = SwitchField.kill("all")


def settings_of(kind: str, servers: Servers, records_url: str) -> Any:
    """Records and broker: one Redis, two databases of it, or Redis and RabbitMQ."""
    brokers = {
        "redis": lambda: records_url,
        "two": lambda: servers.valkey_url().removesuffix("/0") + "/1",
        "rabbitmq": servers.rabbitmq_url,
    }
    return fresh_settings(records_url, broker_url=brokers[kind](), publish_timeout_s=3)


@pytest.fixture(params=["redis", "two", "rabbitmq"])
def yard(request: pytest.FixtureRequest, proxy: Proxy, servers: Servers) -> Iterator[Taskyard]:
    settings = settings_of(request.param, servers, through(proxy, servers.valkey_url()))
    with Taskyard(settings, catalogue()) as opened:
        yield opened
        proxy.loss = None
        proxy.flow()
        client = opened.records.client
        client.delete(*client.scan_iter(f"{settings.namespace}*"), "nothing")


def turn(yard: Taskyard, field: SwitchField, mode: Mode = Mode.REFUSE) -> None:
    turn_on(yard.records.client, yard.settings.namespace, field, mode=mode)


def enqueue(yard: Taskyard, key: str | None = None, **options: Any) -> JobHandle:
    return yard.enqueue("exec_act", {}, idempotency_key=key, **options)


def request(key: str | None, queue: str = "exec") -> EnqueueRequest:
    return EnqueueRequest(job_type="exec_act", payload={}, queue=queue, idempotency_key=key)


def waiting(yard: Taskyard, queue: str = "exec") -> int:
    """How many messages the queue has at the broker."""
    name = yard.settings.broker_name(queue)
    with connection(yard.settings) as opened:
        try:
            return int(opened.default_channel.queue_declare(name, passive=True).message_count)
        except ChannelError:
            return 0


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HOLD])
def test_a_refused_job_has_no_record_and_no_message(yard: Taskyard, mode: Mode) -> None:
    enqueue(yard)
    turn(yard, EXEC, mode)
    with pytest.raises(KillSwitchOn) as caught:
        enqueue(yard, "k")
    error = caught.value
    assert (error.field, error.reason, error.retry_after) == ("kill queue:exec", REASON, 30)
    assert (error.requests, error.job_ids) == ((0,), ())
    with pytest.raises(KillSwitchOn):
        enqueue(yard, "later", countdown=60)
    assert waiting(yard) == 1
    assert enqueue(yard, "k", queue="plan").created
    lift(yard.records.client, yard.settings.namespace, EXEC)
    assert not enqueue(yard, "k").created
    assert enqueue(yard, "later").created


def test_a_pause_refuses_nothing(yard: Taskyard) -> None:
    turn(yard, SwitchField.pause("exec"), Mode.HOLD)
    assert enqueue(yard).created
    assert waiting(yard) == 1


def test_the_operators_own_jobs_come_in_while_everything_is_off(yard: Taskyard) -> None:
    turn(yard, ALL, Mode.HOLD)
    assert enqueue(yard, queue="ops").created
    with pytest.raises(KillSwitchOn, match="kill switch on all is on since"):
        enqueue(yard)


def test_a_key_whose_job_exists_finds_it(yard: Taskyard) -> None:
    job = enqueue(yard, "k")
    turn(yard, ALL)
    again = enqueue(yard, "k")
    assert (again.job_id, again.created) == (job.job_id, False)
    assert asyncio.run(yard.aenqueue("exec_act", {}, idempotency_key="k")).job_id == job.job_id
    (found,) = yard.enqueue_many([request("k")])
    assert (found.job_id, found.created) == (job.job_id, False)
    assert waiting(yard) == 1


@pytest.mark.parametrize("key", ["k", None])
def test_a_call_whose_reply_was_lost_hears_that_it_made_the_job(
    yard: Taskyard, proxy: Proxy, servers: Servers, key: str | None
) -> None:
    enqueue(yard)
    with redis.Redis.from_url(servers.valkey_url()) as operator:
        namespace = yard.settings.namespace
        proxy.lose_replies(SCRIPT, meanwhile=lambda: turn_on(operator, namespace, ALL))
        assert enqueue(yard, key).created
    assert proxy.lost
    assert waiting(yard) == 2
    with pytest.raises(KillSwitchOn):
        enqueue(yard)


def test_a_refusal_that_was_lost_is_decided_again(
    yard: Taskyard, proxy: Proxy, servers: Servers
) -> None:
    enqueue(yard)
    turn(yard, ALL)
    with redis.Redis.from_url(servers.valkey_url()) as operator:
        namespace = yard.settings.namespace
        proxy.lose_replies(SCRIPT, meanwhile=lambda: lift(operator, namespace, ALL))
        assert enqueue(yard, "k").created
    assert proxy.lost
    assert waiting(yard) == 2


def test_many_whose_replies_were_lost_are_refused_only_as_far_as_they_were_not_made(
    yard: Taskyard, proxy: Proxy, servers: Servers
) -> None:
    enqueue(yard)
    with redis.Redis.from_url(servers.valkey_url()) as operator:
        namespace = yard.settings.namespace
        proxy.lose_replies(SCRIPT, after=1, meanwhile=lambda: turn_on(operator, namespace, ALL))
        with pytest.raises(KillSwitchOn) as caught:
            yard.enqueue_many([request(None) for _ in range(400)])
    assert proxy.lost
    error = caught.value
    assert len(error.job_ids) + len(error.requests) == 400
    assert waiting(yard) == 1 + len(error.job_ids)
    assert error.requests[-1] == 399


def test_many_are_enqueued_except_those_that_a_switch_refuses(yard: Taskyard) -> None:
    known = enqueue(yard, "0")
    turn(yard, EXEC)
    requests = [request(str(n), "plan" if n % 3 else "exec") for n in range(120)]
    with pytest.raises(KillSwitchOn) as caught:
        yard.enqueue_many(requests)
    error = caught.value
    refused = tuple(range(3, 120, 3))
    assert error.requests == refused
    # Of the others each is enqueued, in the order of the requests; the first existed already.
    assert len(error.job_ids) == 120 - len(refused)
    assert error.job_ids[0] == known.job_id
    assert {yard.job(job_id).state() for job_id in error.job_ids} == {State.ACCEPTED}
    assert (waiting(yard), waiting(yard, "plan")) == (1, 80)
    assert str(error).startswith(
        "requests 4, 7, 10, 13, 16, 19, 22, 25, 28, 31 and 29 more of the call are not enqueued, "
        "the other 81 are: the kill switch on queue:exec is on since "
    )
    lift(yard.records.client, yard.settings.namespace, EXEC)
    again = yard.enqueue_many(requests[at] for at in error.requests)
    assert all(job.created for job in again)
    assert not any(job.created for job in yard.enqueue_many(requests))


def test_many_of_which_all_are_refused_are_not_enqueued_at_all(yard: Taskyard) -> None:
    turn(yard, ALL, Mode.HOLD)
    with pytest.raises(KillSwitchOn) as caught:
        yard.enqueue_many([request(None) for _ in range(60)])
    assert (caught.value.requests, caught.value.job_ids) == (tuple(range(60)), ())
    assert str(caught.value).startswith("requests 1 to 60 of the call are not enqueued: the kill")
    assert waiting(yard) == 0


def test_several_switches_are_named_and_the_longest_wait_counts(yard: Taskyard) -> None:
    turn_on(yard.records.client, yard.settings.namespace, EXEC, for_s=100)
    turn_on(yard.records.client, yard.settings.namespace, PLAN, for_s=1_000)
    with pytest.raises(KillSwitchOn) as caught:
        yard.enqueue_many([request("a"), request("b", "plan"), request("c", "ops")])
    error = caught.value
    assert (error.field, error.others) == ("kill queue:plan", ("kill queue:exec",))
    assert 900 < error.retry_after <= 1_000
    assert "On are also: kill queue:exec. Enqueue them again in" in str(error)


def test_calls_that_share_a_script_each_have_their_own_refusal(yard: Taskyard) -> None:
    turn(yard, EXEC)

    async def scenario() -> list[Any]:
        calls = [
            yard.aenqueue("exec_act", {}, queue="exec" if n % 2 else "plan") for n in range(200)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert all(job.created for job in answers[::2])
    errors = answers[1::2]
    assert [type(error) for error in errors] == [KillSwitchOn] * 100
    # A raised error has the traceback of its caller.
    assert len({id(error) for error in errors}) == 100
    assert {error.requests for error in errors} == {(0,)}
    assert (waiting(yard), waiting(yard, "plan")) == (0, 100)


def test_threads_that_share_the_client_each_have_their_own_refusal(yard: Taskyard) -> None:
    turn(yard, EXEC)

    def call(number: int) -> Any:
        try:
            return enqueue(yard, queue="exec" if number % 2 else "plan")
        except KillSwitchOn as error:
            return error

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(call, range(128)))
    assert all(isinstance(answer, JobHandle) for answer in answers[::2])
    assert all(isinstance(answer, KillSwitchOn) for answer in answers[1::2])


def test_canvas_and_plain_celery_are_not_refused(yard: Taskyard) -> None:
    turn(yard, ALL, Mode.HOLD)
    task = yard.app.signature("exec_act", ({},), queue=yard.settings.broker_name("exec"))
    task.apply_async()
    chain(task, task).apply_async()
    assert waiting(yard) == 2


def test_many_that_the_server_leaves_say_what_was_refused_before(
    servers: Servers, proxy: Proxy
) -> None:
    settings = settings_of("redis", servers, through(proxy, servers.valkey_url()))
    with Taskyard(settings, catalogue()) as yard:
        enqueue(yard)
        turn(yard, PLAN)
        requests = [request(str(n), "exec" if n else "plan") for n in range(400)]
        proxy.lose_replies(SCRIPT, after=1, times=1_000)
        with pytest.raises(PublishFailed) as caught:
            yard.enqueue_many(requests)
        proxy.loss = None
    assert re.match(
        # How many scripts' answers come in one packet is up to the network.
        r"(49|99|149) of 400 jobs are enqueued, 1 is refused by a kill switch; it is unknown "
        r"whether the next (50|100|150) are \(",
        str(caught.value),
    )


def test_a_job_whose_publication_failed_is_published_by_its_repeat_all_the_same(
    yard: Taskyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    if same_redis(yard.settings):
        pytest.skip("the admission script itself publishes the message")

    def fail(_: object, messages: Sequence[object]) -> list[PublishFailed]:
        return [PublishFailed("the broker went away") for _ in messages]

    with monkeypatch.context() as broken:
        broken.setattr(type(yard.publisher), "publish_many", fail)
        with pytest.raises(PublishFailed):
            enqueue(yard, "k")
    turn(yard, ALL, Mode.HOLD)
    assert waiting(yard) == 0
    assert not enqueue(yard, "k").created
    assert waiting(yard) == 1


def test_no_job_comes_in_after_the_switch_is_on(yard: Taskyard, servers: Servers) -> None:
    def until_refused(number: int) -> list[JobHandle]:
        made = []
        for count in range(100_000):
            try:
                made.append(enqueue(yard, f"{number} {count}"))
            except KillSwitchOn:
                return made
        raise AssertionError("nothing was refused")

    with redis.Redis.from_url(servers.valkey_url()) as operator, ThreadPoolExecutor(12) as pool:
        runs = [pool.submit(until_refused, number) for number in range(12)]
        eventually(lambda: waiting(yard) > 20, "jobs before the switch")
        turn_on(operator, yard.settings.namespace, EXEC)
        on_us = redis_time_us(operator.time())
        jobs = [job for run in runs for job in run.result()]
    assert all(job.record().epoch < on_us for job in jobs)
    # Each of them has its message: none is half done.
    assert waiting(yard) == len(jobs)
