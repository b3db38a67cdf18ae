"""An enqueue whose reply is lost on the way: done once, and told as if nothing had happened."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from servers import Servers
from support.proxy import Proxy, through
from support.yard import ServerHarness, catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import EnqueueRequest, Taskyard
from taskyard.errors import PublishFailed, ServerUnreachable
from taskyard.jobs.states import State
from taskyard.settings import Settings

ADMISSION = b"EVAL"
FOR_EVER = 10_000


@pytest.fixture
def url(proxy: Proxy, servers: Servers) -> str:
    """The server behind the proxy."""
    return through(proxy, servers.valkey_url())


def known_script(harness: ServerHarness) -> ServerHarness:
    """From here on the server knows the script, so that each admission is one request."""
    harness.act()
    return harness


@pytest.fixture
def harness(url: str) -> Iterator[ServerHarness]:
    """Records and broker in one Redis."""
    opened = known_script(ServerHarness(fresh_settings(url)))
    yield opened
    opened.close()


@pytest.fixture
def apart(url: str, servers: Servers) -> Iterator[ServerHarness]:
    """The broker in another database, which the proxy does not touch."""
    broker_url = servers.valkey_url().removesuffix("/0") + "/1"
    opened = known_script(ServerHarness(fresh_settings(url, broker_url=broker_url)))
    yield opened
    opened.close()


def requests(keys: list[str]) -> list[EnqueueRequest]:
    return [EnqueueRequest(job_type="exec_act", payload={}, idempotency_key=key) for key in keys]


@pytest.mark.parametrize("key", ["k", None])
def test_who_made_the_job_hears_so_though_the_reply_was_lost(
    harness: ServerHarness, proxy: Proxy, key: str | None
) -> None:
    proxy.lose_replies(ADMISSION)
    job = harness.act(idempotency_key=key)
    assert proxy.lost
    assert job.created
    assert harness.queued() == 2
    assert harness.event_names(job) == ["admit"]


def test_another_call_with_the_key_hears_that_the_job_was_there(
    harness: ServerHarness, proxy: Proxy
) -> None:
    assert harness.act(idempotency_key="k").created
    proxy.lose_replies(ADMISSION)
    assert not harness.act(idempotency_key="k").created
    assert proxy.lost
    assert harness.queued() == 2


@pytest.mark.parametrize("groups_before", [0, 1, 3])
def test_many_are_told_as_if_no_reply_had_been_lost(
    harness: ServerHarness, proxy: Proxy, groups_before: int
) -> None:
    harness.act(idempotency_key="7")
    # Groups of 50; the replies of some that are under way together may come at once.
    keys = [str(number) for number in range(1000)]
    proxy.lose_replies(ADMISSION, after=groups_before)
    jobs = harness.yard.enqueue_many(requests([*keys, *keys[:50]]))
    assert proxy.lost
    assert [job.created for job in jobs] == [key != "7" for key in keys] + [False] * 50
    assert harness.queued() == 1 + 1000
    assert all(harness.event_names(job) == ["admit"] for job in jobs[::50])


def test_many_without_a_key_are_enqueued_once_though_a_reply_was_lost(
    harness: ServerHarness, proxy: Proxy
) -> None:
    proxy.lose_replies(ADMISSION, after=2)
    jobs = harness.yard.enqueue_many([EnqueueRequest(job_type="exec_act", payload={})] * 500)
    assert proxy.lost
    assert all(job.created for job in jobs)
    assert harness.queued() == 1 + len({job.job_id for job in jobs}) == 501


def test_a_reply_that_never_comes_tells_one_enqueue_that_the_server_is_away(
    harness: ServerHarness, proxy: Proxy
) -> None:
    proxy.lose_replies(ADMISSION, times=FOR_EVER)
    with pytest.raises(ServerUnreachable):
        harness.act(idempotency_key="k")
    proxy.loss = None
    assert not harness.act(idempotency_key="k").created, (
        "another call: nobody can know whose it was"
    )
    assert harness.queued() == 2


def test_replies_that_never_come_tell_many_how_far_they_got(
    harness: ServerHarness, proxy: Proxy
) -> None:
    keys = [str(number) for number in range(500)]
    proxy.lose_replies(ADMISSION, after=2, times=FOR_EVER)
    with pytest.raises(PublishFailed) as raised:
        harness.yard.enqueue_many(requests(keys))
    proxy.loss = None
    counts = re.fullmatch(
        r"(\d+) of 500 jobs are enqueued; it is unknown whether the next (\d+) are \(.+\)\. "
        r"Repeat those that have an idempotency key",
        str(raised.value),
    )
    assert counts, str(raised.value)
    known, unknown = int(counts[1]), int(counts[2])
    assert known % 50 == 0
    assert 0 < unknown <= 150, "a few scripts are ahead of their replies"
    assert known <= harness.queued() - 1 <= known + unknown
    again = harness.yard.enqueue_many(requests(keys))
    assert not any(job.created for job in again[:known])
    assert harness.queued() == 1 + 500


# --- records and broker apart --------------------------------------------------------------------


def test_apart_the_job_is_published_once_and_its_maker_told(
    apart: ServerHarness, proxy: Proxy
) -> None:
    proxy.lose_replies(ADMISSION)
    job = apart.act(idempotency_key="k")
    assert proxy.lost
    assert job.created
    assert apart.queued() == 2
    assert not apart.act(idempotency_key="k").created
    assert apart.queued() == 2, "the first enqueue has confirmed it"


def test_apart_many_are_published_once_and_their_maker_told(
    apart: ServerHarness, proxy: Proxy
) -> None:
    proxy.lose_replies(ADMISSION)
    jobs = apart.yard.enqueue_many(requests([str(number) for number in range(120)]))
    assert proxy.lost
    assert all(job.created for job in jobs)
    assert apart.queued() == 1 + 120


@pytest.fixture
def rabbit(url: str, servers: Servers) -> Iterator[Taskyard]:
    """Records in Redis behind the proxy, the broker a RabbitMQ."""
    settings = fresh_settings(url, broker_url=servers.rabbitmq_url())
    with Taskyard(settings, catalogue()) as yard:
        yard.enqueue("exec_act", {})
        yield yard
        yard.records.client.delete(*yard.records.client.keys(f"{settings.namespace}*"))


def lying(settings: Settings) -> int:
    """How many messages the queue `exec` of a RabbitMQ holds."""
    with connection(settings) as opened:
        name = settings.broker_name("exec")
        return int(opened.default_channel.queue_declare(name, passive=True).message_count)


def test_on_rabbitmq_the_jobs_are_published_once_and_their_maker_told(
    rabbit: Taskyard, proxy: Proxy
) -> None:
    proxy.lose_replies(ADMISSION)
    one = rabbit.enqueue("exec_act", {}, idempotency_key="k")
    assert proxy.lost
    assert one.created
    proxy.lose_replies(ADMISSION)
    many = rabbit.enqueue_many(requests(["k", *map(str, range(60))]))
    assert proxy.lost
    assert [job.created for job in many] == [False] + [True] * 60
    assert lying(rabbit.settings) == 1 + 1 + 60
    assert all(job.state() is State.ACCEPTED for job in many)
