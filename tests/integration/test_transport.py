"""Popping, acknowledging, order and shapes, on a real Valkey 9 and a real Redis 7."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from kombu import Connection
from redis import Redis

from servers import Servers
from support.post import OURS, Post
from support.waiting import eventually

JUNK = {
    "text": b"hello",
    "empty": b"",
    "a list": b"[1, 2]",
    "a JSON text": b'"hello"',
    "cut": b'{"body": "x", "prop',
    "cut after our own ending": b'{}, "", "elsewhere"]',
    "no message": b'{"a": 1}',
    "binary": bytes(range(256)),
    "not UTF-8 in an object": b'{"a": "\xff"}',
    "huge": b"x" * 3_000_000,
}


@pytest.fixture(params=["valkey", "redis"])
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return servers.valkey_url() if request.param == "valkey" else servers.redis_url()


@pytest.fixture
def post(url: str) -> Iterator[Post]:
    opened = Post(url)
    yield opened
    opened.close()


def calls(client: Redis) -> dict[str, int]:
    """How often each command was called since `CONFIG RESETSTAT`."""
    found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(facts["calls"]) for name, facts in found.items()}


# -- the batch -------------------------------------------------------------------------------------


def test_a_batch_is_popped_in_order_and_recorded_with_its_owner_in_one_step(post: Post) -> None:
    post.send(*range(10))
    with post.taking(prefetch_count=6) as taken:
        taken.await_count(6)
        assert taken.bodies == list(range(6))
        assert len(post.waiting()) == 4
        owner = taken.channel.ownership.name
        assert sorted(post.unacked()) == [f"{owner}:{serial}".encode() for serial in range(6)]
        assert owner in post.owners()


def test_a_batch_costs_one_pop_and_a_turn_one_acknowledgement(post: Post) -> None:
    post.send(*range(64))
    with post.taking(prefetch_count=16) as taken:
        taken.await_count(16)
        post.redis.config_resetstat()
        for batch in range(1, 4):
            taken.connection.transport.in_loop = True
            for message in taken.messages[-16:]:
                message.ack()
            taken.await_count(16 * (batch + 1))
        counted = calls(post.redis)
    # One script a batch takes the acknowledgements of the one before along.
    assert counted["evalsha"] <= 3 + 3
    assert counted.get("hdel", 0) == counted["zrem"]
    # A pop without any proves by one that removes nothing that it can record what it pops.
    assert 32 <= counted["hdel"] <= 48 + 3
    assert counted["rpop"] <= 8 * 4


def test_no_pop_takes_more_than_the_prefetch_count_allows(post: Post) -> None:
    post.send(*range(40))
    with post.taking(prefetch_count=5) as taken:
        taken.await_count(5)
        taken.turn(3)
        assert len(post.unacked()) == len(taken.messages) == 5
        taken.messages[0].ack()
        taken.await_count(6)
        assert len(post.unacked()) == 5


def test_acknowledged_messages_leave_nothing(post: Post) -> None:
    post.send("a", "b")
    with post.taking() as taken:
        taken.await_count(2)
        for message in taken.messages:
            message.ack()
        assert not post.unacked()
    assert not post.waiting()


def test_what_a_closing_consumer_holds_goes_back_in_its_old_order(post: Post) -> None:
    post.send(*range(5))
    with post.taking(prefetch_count=3) as taken:
        taken.await_count(3)
        owner = taken.channel.ownership.name
        taken.channel.close()
        assert post.owners()[owner].signed_off
    assert not post.unacked()
    with post.taking() as taken:
        assert taken.await_count(5) == list(range(5))
        marks = [message.delivery_info.get("redelivered") for message in taken.messages]
        assert marks == [True, True, True, None, None]


def test_a_rejected_message_is_dropped_or_goes_last(post: Post) -> None:
    post.send("dropped", "again", "third")
    with post.taking(prefetch_count=1) as taken:
        taken.await_count(1)
        taken.messages[0].reject()
        taken.await_count(2)
        taken.messages[1].requeue()
        taken.await_count(3)
        taken.messages[2].ack()
        assert taken.await_count(4) == ["dropped", "again", "third", "again"]
        taken.messages[3].ack()
        assert not post.unacked()


def test_a_consumer_without_acknowledgements_leaves_nothing_unacknowledged(post: Post) -> None:
    post.send(*range(8))
    with post.taking(no_ack=True, prefetch_count=4) as taken:
        taken.await_count(8)
        assert not post.unacked()


def test_a_single_get_is_recorded_until_it_is_acknowledged(post: Post) -> None:
    post.send("a", "b")
    with post.connect() as connection:
        channel = connection.channel()
        first = channel.basic_get(post.queue())
        assert json.loads(first.body) == "a"
        assert len(post.unacked()) == 1
        first.ack()
        assert not post.unacked()
        second = channel.basic_get(post.queue(), no_ack=True)
        assert json.loads(second.body) == "b"
        assert not post.unacked()
        assert channel.basic_get(post.queue()) is None


def test_a_single_get_beside_a_consumer_takes_nobodys_place(post: Post) -> None:
    with post.taking("q", prefetch_count=2) as taken:
        taken.turn(2)
        post.send("other", queue="other")
        got = taken.channel.basic_get(post.queue("other"))
        post.send("mine")
        taken.await_count(1)
        assert json.loads(got.body) == "other"
        assert taken.messages[0].delivery_info["routing_key"] == post.queue()
        assert len(post.unacked()) == 2


def test_messages_of_a_lost_answer_are_not_written_over(post: Post) -> None:
    post.send(*range(4))
    with post.taking(prefetch_count=2) as taken:
        channel = taken.channel
        connection = channel.client.connection or channel.client.connection_pool.get_connection()
        channel.client.connection = connection
        connection.connect()
        channel._brpop_start()
        eventually(lambda: len(post.unacked()) == 2, "the pop was carried out")
        connection.disconnect()
        channel.pops.give_up_reply()
        taken.await_count(2)
        assert len(post.unacked()) == 4
        assert sorted(taken.bodies) == [2, 3]


# -- order -----------------------------------------------------------------------------------------


def test_more_urgent_messages_are_served_first(post: Post) -> None:
    for priority in (9, 6, 3, 0):
        post.send(priority, priority=priority)
    with post.taking(options={"fairness": 0}) as taken:
        assert taken.await_count(4) == [0, 3, 6, 9]


def test_the_least_urgent_level_is_served_while_urgent_work_never_ends(post: Post) -> None:
    post.send(*["low"] * 3, priority=9)
    post.send(*["high"] * 60, priority=0)
    with post.taking(prefetch_count=1, options={"fairness": 10}) as taken:
        for count in range(1, 41):
            taken.await_count(count)
            taken.messages[-1].ack()
        assert taken.bodies.count("low") == 3


def test_every_queue_gets_its_floor_however_much_urgent_work_another_has(post: Post) -> None:
    post.send(*["busy"] * 80, queue="busy", priority=0)
    for name in ("b", "c"):
        post.send(name, queue=name, priority=9)
    with post.taking("busy", "b", "c", prefetch_count=1, options={"fairness": 5}) as taken:
        for count in range(1, 31):
            taken.await_count(count)
            taken.messages[-1].ack()
        assert {"b", "c"} <= set(taken.bodies)


def test_queues_of_equal_urgency_take_turns(post: Post) -> None:
    for name in ("a", "b"):
        post.send(*[name] * 20, queue=name)
    with post.taking("a", "b", prefetch_count=1) as taken:
        for count in range(1, 21):
            taken.await_count(count)
            taken.messages[-1].ack()
        assert 8 <= taken.bodies.count("a") <= 12


@pytest.mark.parametrize(
    "strategy", ["priority", "sorted", "kombu.utils.scheduling:priority_cycle"]
)
def test_an_order_of_queues_that_stays_is_kept(post: Post, strategy: str) -> None:
    for name in ("b", "a"):
        post.send(*[name] * 5, queue=name)
    options = {"fairness": 0, "queue_order_strategy": strategy}
    with post.taking("b", "a", prefetch_count=1, options=options) as taken:
        for count in range(1, 11):
            taken.await_count(count)
            taken.messages[-1].ack()
        first, last = ("a", "b") if strategy == "sorted" else ("b", "a")
        assert taken.bodies == [first] * 5 + [last] * 5


def test_without_acknowledgements_as_an_app_has_it_nothing_is_lost_either(post: Post) -> None:
    post.send(1)
    with post.taking(options={"ack_emulation": False}) as taken:
        taken.await_count(1)
        assert len(post.unacked()) == 1


# -- names and shapes ------------------------------------------------------------------------------


def test_a_key_prefix_goes_before_every_key(url: str) -> None:
    prefix = "tenant:"
    post = Post(url, global_keyprefix=prefix)
    try:
        post.send("a", "b", "c")
        with post.taking() as taken:
            taken.await_count(3)
            taken.messages[0].ack()
            taken.messages[1].requeue()
            taken.await_count(4)
            assert post.redis.hlen(f"{prefix}{post.name}:unacked") == 2
            taken.channel.close()
        names = [key.decode() for key in post.redis.scan_iter(f"*{post.name}*")]
        assert names
        assert all(name.startswith(prefix) for name in names)
        assert post.redis.llen(prefix + post.queue()) == 2
    finally:
        post.close()


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_delivered_as_its_bytes_and_goes_back_as_its_bytes(post: Post, kind: str) -> None:
    post.redis.lpush(post.queue(), JUNK[kind])
    post.send("good")
    with post.taking() as taken:
        taken.await_that(lambda: len(taken.messages) == 2, "both are delivered")
        junk, good = taken.messages
        assert junk.body == JUNK[kind]
        assert "task" not in junk.headers
        good.ack()
        taken.channel.close()
    again = post.waiting()
    if kind == "no message":
        assert json.loads(again[0])["a"] == 1
    else:
        assert again == [JUNK[kind]]


def test_a_key_of_another_type_stops_neither_consumer_nor_other_queues(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.redis.set(post.queue("odd"), "not a list")
    post.send(*range(3), queue="even")
    post.send("urgent", queue="even", priority=9)
    with post.taking("odd", "even") as taken:
        taken.await_count(4)
        assert sorted(taken.bodies, key=str) == [0, 1, 2, "urgent"]
        assert len(post.unacked()) == 4
        taken.turn(3)
        post.redis.delete(post.queue("odd"))
        post.send("mended", queue="odd")
        taken.await_count(5)
    logged = [record for record in caplog.records if vars(record).get("action")]
    assert [vars(record)["action"] for record in logged] == ["key_misplaced"]
    assert post.queue("odd") in logged[0].getMessage()


def test_a_flushed_script_cache_is_filled_again(post: Post) -> None:
    post.send(*range(3))
    with post.taking(prefetch_count=1) as taken:
        taken.await_count(1)
        post.redis.script_flush()
        taken.messages[0].ack()
        taken.await_count(2)
        post.redis.script_flush()
        taken.messages[1].requeue()
        taken.await_count(3)
        post.redis.script_flush()
        taken.channel.close()
    assert len(post.waiting()) == 2
    assert not post.unacked()


# -- neighbours ------------------------------------------------------------------------------------


def test_kombus_own_consumer_takes_what_ours_gave_back_and_the_other_way_round(post: Post) -> None:
    post.send("a", stock=False)
    with post.taking() as taken:
        taken.await_count(1)
        taken.channel.close()
    with post.taking(stock=True) as taken:
        taken.await_count(1)
        assert len(post.unacked()) == 1
        taken.channel.close()
    with post.taking() as taken:
        assert taken.await_count(1) == ["a"]
        taken.messages[0].ack()
    assert not post.unacked()


def test_kombu_restores_what_our_consumer_held_too_long(post: Post) -> None:
    post.send("a")
    with post.taking() as ours:
        ours.await_count(1)
        options = {"visibility_timeout": 0}
        with post.taking("elsewhere", stock=True, options=options) as stock:
            stock.await_that(post.waiting, "kombu's sweep gave it back")
    assert json.loads(post.waiting()[0])["headers"]["redelivered"] is True


# -- idle ------------------------------------------------------------------------------------------


def test_an_idle_consumer_is_told_of_new_messages_at_once(post: Post) -> None:
    waits = []
    with post.taking(no_ack=True) as taken, post.connect(stock=True) as connection:
        producer = connection.Producer(serializer="json")
        taken.turn(3)
        for _ in range(50):
            producer.publish(time.monotonic(), routing_key=post.queue())
            sent = len(taken.messages) + 1
            taken.await_count(sent)
            waits.append(time.monotonic() - taken.bodies[-1])
    # Far below the second after which an idle consumer asks by itself.
    # The bounds of a busy machine; the bench measures the real ones.
    assert sorted(waits)[len(waits) // 2] < 0.2
    assert max(waits) < 1.0


def test_an_idle_consumer_asks_hardly_ever(post: Post) -> None:
    with post.taking() as taken:
        taken.turn(5)
        post.redis.config_resetstat()
        taken.turn(20)
        counted = calls(post.redis)
    assert counted.get("rpop", 0) <= 4 * 8
    assert counted.get("evalsha", 0) <= 16


def test_where_tracking_is_refused_an_idle_consumer_polls(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(servers.redis_url())
    user, word = post.name, "word"
    rules = {"enabled": True, "passwords": ["+" + word], "keys": ["*"], "channels": ["*"]}
    commands = {"categories": ["+@all"], "commands": ["-client|tracking"]}
    post.redis.acl_setuser(user, **rules, **commands)
    post.url = post.url.replace("redis://", f"redis://{user}:{word}@")
    try:
        with post.taking() as taken:
            taken.turn(3)
            sent_at = time.monotonic()
            post.send("a")
            assert taken.await_count(1) == ["a"]
            assert time.monotonic() - sent_at < 2
    finally:
        post.redis.acl_deluser(user)
        post.close()
    logged = [record for record in caplog.records if vars(record).get("action")]
    assert [vars(record)["action"] for record in logged] == ["tracking_refused"]


def test_the_connection_of_a_url_names_our_transport(url: str) -> None:
    with Connection(url, transport=OURS) as connection:
        assert type(connection.transport).__module__ == "taskyard.transport.transport"
        assert connection.transport.driver_type == "redis"
