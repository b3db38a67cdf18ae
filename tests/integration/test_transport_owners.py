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
from typing import Any

import pytest
from kombu import Exchange, Queue

from servers import Servers
from support.post import Post
from support.waiting import eventually
from taskyard.transport.owner_descriptions import OWNER_TTL_S, describe
from taskyard.transport.pop_request import Pop
from taskyard.transport.requeue import RESTORE_BATCH

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


@pytest.mark.slow
def test_a_living_consumer_keeps_its_messages_longer_than_its_heartbeat_lives(post: Post) -> None:
    post.send(1)
    with holder(post, 1), post.taking("other") as survivor:
        until = time.monotonic() + OWNER_TTL_S + 3
        survivor.await_that(lambda: time.monotonic() > until, "time passed", OWNER_TTL_S + 20)
        assert len(post.unacked()) == 1
        assert not post.waiting()


def test_a_consumer_that_was_cancelled_lives_as_long_as_it_holds_messages(post: Post) -> None:
    """A worker that drains may wait hours for the end of its last job."""
    post.send(1)
    with post.taking(prefetch_count=1) as taken:
        taken.await_count(1)
        taken.consumer.cancel()
        owner = taken.channel.ownership.name
        post.silence(owner, OWNER_TTL_S / 2)
        before = post.redis.hget(f"{post.name}:heartbeats", owner)
        taken.await_that(
            lambda: post.redis.hget(f"{post.name}:heartbeats", owner) != before, "a heartbeat"
        )
        assert len(post.unacked()) == 1
        taken.messages[0].ack()
        assert not post.unacked()


def test_what_a_pop_brings_to_a_cancelled_consumer_goes_back_as_it_came(post: Post) -> None:
    with post.taking(prefetch_count=2) as taken:
        taken.turn(2)
        post.send(1, 2, 3)
        taken.channel.pops.ask_again()
        taken.channel._brpop_start()
        taken.consumer.cancel()
        taken.await_that(lambda: len(post.waiting()) == 3 and not post.unacked(), "all are back")
        assert not taken.messages
    bodies = [json.loads(raw) for raw in post.waiting()]
    assert [body["headers"].get("redelivered") for body in bodies] == [None] * 3
    with post.taking() as taken:
        assert taken.await_count(3) == [1, 2, 3]


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
    remember(post, "long.gone")
    with post.taking() as taken:
        alive = taken.channel.ownership.name
        taken.await_that(lambda: set(post.owners()) == {alive}, "the dead one is gone")


def remember(post: Post, owner: str, **options: Any) -> None:
    """An owner that was last heard of long ago."""
    options = {**post.options, **options}
    steps = options.get("priority_steps", [0, 3, 6, 9])
    keys = options["unacked_key"], options["unacked_index_key"]
    text = describe(*keys, options.get("sep", "\x06\x16"), steps, [post.queue()])
    post.redis.hset(f"{post.name}:heartbeats", owner, f"1 {text}")


def sweep(post: Post, channel: Any, mutex: str | None = None) -> None:
    """Sweep now, however short ago another did."""
    post.redis.delete(mutex or post.options["unacked_mutex_key"])
    channel.qos.restore_visible()


def test_a_sweep_of_other_unacked_keys_forgets_no_owner_and_the_next_of_its_own_gives_back(
    post: Post,
) -> None:
    """A mirror beside an app: one set of heartbeats, and what is out under different names."""
    elsewhere = {
        name: f"{post.options[name]}:mirror"
        for name in ("unacked_key", "unacked_index_key", "unacked_mutex_key")
    }
    post.send(1)
    with holder(post, 1) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (dead,) = post.owners()
    post.silence(dead)
    with post.connect(**elsewhere) as connection:
        for _ in range(3):
            sweep(post, connection.default_channel, elsewhere["unacked_mutex_key"])
    assert (list(post.owners()), len(post.unacked())) == ([dead], 1)
    with post.connect() as connection:
        sweep(post, connection.default_channel)
        assert (len(post.waiting()), len(post.unacked())) == (1, 0)
        sweep(post, connection.default_channel)
    assert not post.owners()


def test_half_of_the_unacked_keys_in_common_is_not_enough_to_forget_an_owner(post: Post) -> None:
    remember(post, "long.gone")
    with post.connect(unacked_index_key=f"{post.name}:other_index") as connection:
        sweep(post, connection.default_channel)
    assert list(post.owners()) == ["long.gone"]


def test_a_pop_that_comes_after_its_owner_was_forgotten_makes_it_known_again(post: Post) -> None:
    """Its connection was lost, and the server executes what it had sent all the same."""
    post.send(1)
    with post.taking("other") as taken:
        post.redis.delete(f"{post.name}:heartbeats")
        pop = Pop([(post.queue(), 0)], 0, 1)
        taken.channel.pops.script(post.redis, *taken.channel.pops.call(pop))
        owner = taken.channel.ownership.name
        assert (list(post.owners()), len(post.unacked())) == ([owner], 1)


def test_a_consumer_that_stood_still_says_that_it_lives_before_it_takes_more(post: Post) -> None:
    with post.taking() as taken:
        owner = taken.channel.ownership.name
        taken.turn()
        post.silence(owner)
        taken.channel.ownership._beaten_at -= 60
        post.send(1)
        taken.await_count(1)
        sweep(post, taken.channel)
        assert (len(post.unacked()), len(post.waiting())) == (1, 0)


def test_a_message_goes_back_to_the_list_that_its_dead_owner_read(post: Post) -> None:
    """Whoever sweeps may know other steps and separators: an app's own options."""
    options = {"priority_steps": [0, 5], "sep": "~"}
    post.send(1, priority=7)
    (raw,) = post.redis.lrange(f"{post.queue()}\x06\x166", 0, -1)
    post.redis.rename(f"{post.queue()}\x06\x166", f"{post.queue()}~5")
    with post.taking(options=options) as taken:
        taken.await_count(1)
        post.silence(taken.channel.ownership.name)
        with post.connect() as connection:
            sweep(post, connection.default_channel)
        (back,) = post.redis.lrange(f"{post.queue()}~5", 0, -1)
    assert json.loads(back)["body"] == json.loads(raw)["body"]


def test_two_sweepers_give_a_message_back_once(post: Post) -> None:
    post.send(1)
    with holder(post, 1) as process:
        process.send_signal(signal.SIGKILL)
        with post.taking("a") as one, post.taking("b") as other:
            (dead,) = set(post.owners()) - {
                one.channel.ownership.name,
                other.channel.ownership.name,
            }
            post.silence(dead)
            for _ in range(3):
                post.redis.delete(f"{post.name}:unacked_mutex")
                one.channel.qos.restore_visible()
                post.redis.delete(f"{post.name}:unacked_mutex")
                other.channel.qos.restore_visible()
    assert len(post.waiting()) == 1
    assert not post.unacked()


@pytest.mark.parametrize("life", [{"px": 300_000}, {}], ids=["five minutes", "for ever"])
def test_a_lock_that_a_killed_worker_of_kombus_transport_left_stops_no_sweep(
    post: Post, life: dict[str, int]
) -> None:
    """kombu's lives for five minutes, and both transports have one name for it."""
    post.send(1)
    with holder(post, 1) as process, post.connect() as connection:
        process.send_signal(signal.SIGKILL)
        (dead,) = post.owners()
        post.silence(dead)
        post.redis.set(f"{post.name}:unacked_mutex", "of a killed worker", **life)
        connection.channel().qos.restore_visible()
        assert len(post.waiting()) == 1
        # The next look waits for its own.
        assert 0 < post.redis.pttl(f"{post.name}:unacked_mutex") <= 1_000


def test_an_acknowledgement_beats_a_sweep_that_is_under_way(post: Post) -> None:
    post.send(1)
    with post.taking() as taken:
        taken.await_count(1)
        post.redis.delete(f"{post.name}:unacked_mutex")
        found = list(taken.channel.ownership.sweep(10, -1))
        assert len(found) == 1
        taken.messages[0].ack()
        for swept in found:
            taken.channel.qos.giving_back.restore(taken.channel._create_client(), swept, "next")
    assert not post.waiting()


def test_one_sweep_gives_back_a_bounded_number(post: Post) -> None:
    count = RESTORE_BATCH + 20
    tags = {f"long.gone:{serial}": '[{"a": 1}, "", "%s"]' % post.queue() for serial in range(count)}  # noqa: UP031
    post.redis.hset(post.options["unacked_key"], mapping=tags)
    post.redis.zadd(post.options["unacked_index_key"], dict.fromkeys(tags, time.time()))
    remember(post, "long.gone")
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


@pytest.mark.slow
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
