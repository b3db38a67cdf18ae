"""Concurrent enqueues of one client where the broker is a RabbitMQ: two steps that go together."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from servers import Servers
from support.proxy import Cuts, Proxy, through
from support.rabbitmq import memory_alarm
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import EnqueueRequest, Taskyard
from taskyard.errors import PublishFailed, Unroutable
from taskyard.jobs.states import State

ADMISSION = b"EVAL"
# A blocked publication takes all of its time, so no longer than a busy machine needs.
PATIENT_S = 6


@pytest.fixture
def to_rabbitmq(servers: Servers) -> Iterator[Proxy]:
    direct = urlsplit(servers.rabbitmq_url())
    with Proxy(str(direct.hostname), int(direct.port or 0)) as running:
        yield running


@pytest.fixture
def yard(proxy: Proxy, to_rabbitmq: Proxy, servers: Servers) -> Iterator[Taskyard]:
    """Records and broker each behind a proxy of their own."""
    settings = fresh_settings(
        through(proxy, servers.valkey_url()),
        broker_url=through(to_rabbitmq, servers.rabbitmq_url()),
        publish_timeout_s=2,
    )
    with Taskyard(settings, catalogue()) as opened:
        opened.enqueue("exec_act", {})
        take(opened, servers)
        yield opened
        proxy.loss = to_rabbitmq.loss = None
        opened.records.client.delete(*opened.records.client.keys(f"{settings.namespace}*"))


def take(yard: Taskyard, servers: Servers, queue: str = "exec") -> list[str]:
    """The ids of all messages in a queue, which is empty after that."""
    settings = yard.settings.model_copy(update={"broker_url": servers.rabbitmq_url()})
    with connection(settings) as opened:
        channel, name = opened.default_channel, settings.broker_name(queue)
        messages = iter(lambda: channel.basic_get(name, no_ack=True), None)
        return [message.headers["id"] for message in messages]


def calls(yard: Taskyard, keys: list[str | None], **options: Any) -> list[Any]:
    async def scenario() -> list[Any]:
        each = [yard.aenqueue("exec_act", {}, idempotency_key=key, **options) for key in keys]
        return await asyncio.gather(*each, return_exceptions=True)

    return asyncio.run(scenario())


def test_each_is_published_once_and_confirmed(yard: Taskyard, servers: Servers) -> None:
    jobs = calls(yard, [None] * 60 + [str(number % 40) for number in range(120)])
    ids = [job.job_id for job in jobs]
    assert Counter(take(yard, servers)) == Counter(set(ids))
    assert sum(job.created for job in jobs) == len(set(ids)) == 100
    assert {job.record().fields["published"] for job in jobs} == {"1"}


def test_what_waits_and_what_does_not_may_be_neighbours(yard: Taskyard, servers: Servers) -> None:
    async def scenario() -> list[Any]:
        each = [
            yard.aenqueue("exec_act", {}, countdown=3600 if number % 2 else None)
            for number in range(40)
        ]
        return await asyncio.gather(*each)

    jobs = asyncio.run(scenario())
    assert sorted(take(yard, servers)) == sorted(job.job_id for job in jobs[::2])


def test_a_queue_that_is_gone_fails_its_own_calls_alone(yard: Taskyard, servers: Servers) -> None:
    with connection(yard.settings) as opened:
        opened.default_channel.queue_delete(yard.settings.broker_name("plan"))

    async def scenario() -> list[Any]:
        each = [
            yard.aenqueue("plan_act" if number % 5 == 0 else "exec_act", {}) for number in range(60)
        ]
        return await asyncio.gather(*each, return_exceptions=True)

    jobs = asyncio.run(scenario())
    failed = jobs[::5]
    assert [type(error) for error in failed] == [Unroutable] * 12
    fine = [job for job in jobs if not isinstance(job, Exception)]
    assert len(fine) == 48
    assert sorted(take(yard, servers)) == sorted(job.job_id for job in fine)


def test_a_blocked_broker_is_told_to_each_call(yard: Taskyard, servers: Servers) -> None:
    # In this time RabbitMQ must accept a new connection too, and report the alarm on it.
    patient = yard.settings.model_copy(update={"publish_timeout_s": PATIENT_S})
    with memory_alarm(servers.rabbitmq), Taskyard(patient, catalogue()) as blocked:
        errors = calls(blocked, ["a", "b", None])
    assert [type(error) for error in errors] == [PublishFailed] * 3
    assert all("blocks publishers, because memory" in str(error) for error in errors)
    again = calls(yard, ["a", "b"])
    assert [job.created for job in again] == [False, False]
    assert {job.state() for job in again} == {State.ACCEPTED}


@pytest.mark.parametrize("which", ["records", "broker", "both"])
def test_connections_that_are_cut_again_and_again_lose_nothing(
    yard: Taskyard, servers: Servers, proxy: Proxy, to_rabbitmq: Proxy, which: str
) -> None:
    """A confirmation that is lost makes a second message of the job, which changes nothing."""
    which_of = {"records": [proxy], "broker": [to_rabbitmq], "both": [proxy, to_rabbitmq]}
    cuts = Cuts(random.Random(which), which_of[which])  # noqa: S311 - it repeats

    async def service(number: int) -> list[Any]:
        found = []
        for each in range(6):
            key = None if each % 3 == 0 else f"{number % 10}-{each}"
            while True:
                try:
                    found.append(await yard.aenqueue("exec_act", {}, idempotency_key=key))
                    cuts.after_an_answer()
                except PublishFailed:
                    # The broker was lost twice in a row: whoever calls may repeat what has a key.
                    if key is not None:
                        continue
                break
        return found

    async def scenario() -> list[list[Any]]:
        return list(await asyncio.gather(*(service(number) for number in range(20))))

    jobs = [job for each in asyncio.run(scenario()) for job in each]
    assert cuts.count >= 3
    ids = {job.job_id for job in jobs}
    assert ids <= set(take(yard, servers))
    assert len({job.job_id for job in jobs if job.created}) == sum(job.created for job in jobs)
    assert {job.record().fields["published"] for job in jobs} == {"1"}


def test_many_are_confirmed_together_too(yard: Taskyard, servers: Servers, proxy: Proxy) -> None:
    requests = [EnqueueRequest(job_type="exec_act", payload={}) for _ in range(230)]
    proxy.lose_replies(ADMISSION, after=2)
    jobs = yard.enqueue_many(requests)
    assert proxy.lost
    assert all(job.created for job in jobs)
    assert sorted(take(yard, servers)) == sorted(job.job_id for job in jobs)
