"""Who holds what: a dead owner's messages come back in seconds, a living one's keep their time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu import Exchange, Queue

from servers import Servers
from support.post import Post
from support.waiting import eventually
from taskyard.transport.holdings import OWNER_TTL_S
from taskyard.transport.qos import RESTORE_BATCH

HOLDER = """
import sys
from kombu import Connection
from support.post import Taken
url, queue, count, options, transport = (eval(word) for word in sys.argv[1:])
taken = Taken(Connection(url, transport=transport, transport_options=options), [queue],
              prefetch_count=count)
taken.await_count(count)
sys.stdout.write("held\\n")
sys.stdout.flush()
while True:
    taken.turn()
"""


@pytest.fixture
def post(servers: Servers) -> Iterator[Post]:
    opened = Post(servers.valkey_url())
    yield opened
    opened.close()


@contextmanager
def holder(post: Post, count: int, *, stock: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `count` messages of `q` and goes on living."""
    options = post.options if stock else {**post.options, **post.own}
    transport = None if stock else "taskyard.transport:Transport"
    words = [repr(word) for word in (post.url, post.queue(), count, options, transport)]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_messages_of_a_killed_consumer_are_back_within_seconds(post: Post) -> None:
    post.send(*range(5))
    with holder(post, 3) as process, post.taking("other") as survivor:
        process.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        survivor.await_that(lambda: not post.unacked(), "a survivor gave them back", 15)
        assert time.monotonic() - killed_at < OWNER_TTL_S + 5
    bodies = [json.loads(raw) for raw in post.waiting()]
    assert [body["headers"].get("redelivered") for body in bodies] == [True] * 3 + [None] * 2
    with post.taking() as taken:
        assert taken.await_count(5) == list(range(5))


def test_a_living_consumer_keeps_its_messages_longer_than_its_heartbeat_lives(post: Post) -> None:
    post.send(1)
    with holder(post, 1), post.taking("other") as survivor:
        until = time.monotonic() + OWNER_TTL_S + 3
        survivor.await_that(lambda: time.monotonic() > until, "time passed", OWNER_TTL_S + 20)
        assert len(post.unacked()) == 1
        assert not post.waiting()


def test_a_stock_consumer_has_no_heartbeat_and_keeps_its_visibility_timeout(post: Post) -> None:
    post.send(1)
    with holder(post, 1, stock=True) as process:
        process.send_signal(signal.SIGKILL)
        with post.taking("other", options={"visibility_timeout": 2}) as survivor:
            survivor.turn(3)
            assert len(post.unacked()) == 1
            survivor.await_that(post.waiting, "its visibility timeout ended", 20)
        assert not post.unacked()


def test_an_owner_that_held_nothing_is_forgotten(post: Post) -> None:
    post.redis.sadd(f"{post.name}:owners", "long.gone")
    with post.taking() as taken:
        alive = taken.channel.owner.encode()
        taken.await_that(
            lambda: post.redis.smembers(f"{post.name}:owners") == {alive}, "the dead one is gone"
        )


def test_two_sweepers_give_a_message_back_once(post: Post) -> None:
    post.send(1)
    with holder(post, 1) as process:
        process.send_signal(signal.SIGKILL)
        with post.taking("a") as one, post.taking("b") as other:
            post.redis.delete(*post.redis.keys(f"{post.name}:owner:*"))
            for _ in range(3):
                post.redis.delete(f"{post.name}:unacked_mutex")
                one.channel.qos.restore_visible()
                post.redis.delete(f"{post.name}:unacked_mutex")
                other.channel.qos.restore_visible()
    assert len(post.waiting()) == 1
    assert not post.unacked()


def test_an_acknowledgement_beats_a_sweep_that_is_under_way(post: Post) -> None:
    post.send(1)
    with post.taking() as taken:
        taken.await_count(1)
        post.redis.delete(f"{post.name}:unacked_mutex")
        found = list(taken.channel.sweep(10, -1))
        assert len(found) == 1
        taken.messages[0].ack()
        for tag, stored in found:
            taken.channel.qos._restore(taken.channel._create_client(), tag, stored, "next")
    assert not post.waiting()


def test_one_sweep_gives_back_a_bounded_number(post: Post) -> None:
    count = RESTORE_BATCH + 20
    tags = {f"long.gone:{serial}": '[{"a": 1}, "", "%s"]' % post.queue() for serial in range(count)}  # noqa: UP031
    post.redis.hset(post.options["unacked_key"], mapping=tags)
    post.redis.zadd(post.options["unacked_index_key"], dict.fromkeys(tags, time.time()))
    post.redis.sadd(f"{post.name}:owners", "long.gone")
    with post.connect() as connection:
        channel = connection.channel()
        channel.qos.restore_visible()
        assert len(post.waiting()) == RESTORE_BATCH
        post.redis.delete(f"{post.name}:unacked_mutex")
        channel.qos.restore_visible()
        assert len(post.waiting()) == count
    assert not post.unacked()


def test_a_restored_message_keeps_its_urgency_and_is_served_next(post: Post) -> None:
    post.send("first", priority=6)
    with post.taking(options={"fairness": 0}) as taken:
        taken.await_count(1)
        post.send("second", priority=6)
        taken.turn(2)
        taken.channel.close()
    assert [json.loads(raw)["properties"]["priority"] for raw in post.waiting()] == [6, 6]
    with post.taking(options={"fairness": 0}) as taken:
        assert taken.await_count(2) == ["first", "second"]


@pytest.mark.parametrize("bound", [True, False], ids=["bound", "binding gone"])
def test_what_a_stock_consumer_held_goes_back_also_where_its_binding_is_gone(
    post: Post, bound: bool
) -> None:
    exchange = Exchange(f"{post.name}.direct", "direct")
    queue = Queue(post.queue(), exchange, routing_key=post.queue())
    with post.connect(stock=True) as connection:
        channel = connection.channel()
        queue(channel).declare()
        producer = connection.Producer(channel, serializer="json")
        producer.publish("a", exchange=exchange, routing_key=post.queue())
    with holder(post, 1, stock=True) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(post.unacked()) == 1
    if not bound:
        post.redis.delete(f"_kombu.binding.{exchange.name}")
    with post.connect(visibility_timeout=0) as connection:
        eventually(lambda: _swept(post, connection.default_channel), "it is back")
    post.redis.delete(f"_kombu.binding.{exchange.name}")
    assert len(post.waiting()) == 1
    assert not post.unacked()


def _swept(post: Post, channel: object) -> bool:
    channel.qos.restore_visible()  # type: ignore[attr-defined]
    return bool(post.waiting())


def test_an_infinite_priority_does_not_keep_a_dead_owners_messages(post: Post) -> None:
    post.send(1)
    [raw] = post.waiting()
    document = json.loads(raw)
    document["properties"]["priority"] = float("inf")
    post.redis.lpop(post.queue())
    post.redis.lpush(post.queue(), json.dumps(document))
    with holder(post, 1) as process, post.taking("other") as survivor:
        process.send_signal(signal.SIGKILL)
        survivor.await_that(lambda: not post.unacked(), "a survivor gave it back", 15)
    with post.taking() as taken:
        assert taken.await_count(1) == [1]
