"""What users of kombu know from its own Redis transport and find again in ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.asynchronous.hub import Hub
from redis import Redis

from servers import Servers
from support.post import OURS, Post
from support.proxy import Proxy
from support.waiting import eventually

EXPIRES_S = 30.0


@pytest.fixture(params=["", "tenant:"], ids=["plain", "prefixed"])
def post(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Post]:
    options = {"global_keyprefix": request.param} if request.param else {}
    opened = Post(servers.redis_url(), **options)
    yield opened
    opened.close()


def received(connection: Connection, queues: list[Queue], count: int) -> list[Any]:
    """The bodies of the next `count` messages, acknowledged."""
    got: list[Any] = []

    def take(body: Any, message: Any) -> None:
        got.append(body)
        message.ack()

    with Consumer(connection, queues, callbacks=[take], accept=["json"]):

        def drained() -> bool:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.05)
            return len(got) >= count

        eventually(drained, f"{count} messages")
    return got


# -- routing ---------------------------------------------------------------------------------------


def test_a_direct_exchange_leads_where_its_binding_says_and_nowhere_else(post: Post) -> None:
    exchange = Exchange(post.queue("direct"), "direct")
    one, other = (Queue(post.queue(name), exchange, routing_key=name) for name in ("one", "other"))
    with post.connect() as connection:
        producer = Producer(connection.channel(), exchange, serializer="json")
        for key in ("one", "unbound", "one"):
            producer.publish(key, routing_key=key, declare=[one, other])
        assert received(connection, [one], 2) == ["one", "one"]
        assert other(connection.default_channel).get() is None


def test_a_topic_exchange_leads_to_every_queue_that_matches(post: Post) -> None:
    exchange = Exchange(post.queue("topic"), "topic")
    queues = [
        Queue(post.queue(name), exchange, routing_key=pattern)
        for name, pattern in [("all", "#"), ("two", "job.*"), ("exact", "job.done")]
    ]
    with post.connect() as connection:
        producer = Producer(connection.channel(), exchange, serializer="json")
        for key in ("job.done", "job.begun", "job.begun.twice"):
            producer.publish(key, routing_key=key, declare=list(queues))
        assert received(connection, queues[:1], 3) == ["job.done", "job.begun", "job.begun.twice"]
        assert received(connection, queues[1:2], 2) == ["job.done", "job.begun"]
        assert received(connection, queues[2:], 1) == ["job.done"]


def test_a_fanout_reaches_every_listener_also_beside_a_consumer_of_work(post: Post) -> None:
    exchange = Exchange(post.queue("fanout"), "fanout")
    with post.connect() as one, post.connect() as other:
        heard: list[tuple[str, Any]] = []
        consumers = []
        for name, connection in (("one", one), ("other", other)):
            work = Queue(post.queue(name), routing_key=post.queue(name))
            queues = [Queue(post.queue(f"heard.{name}"), exchange), work]
            consumer = Consumer(connection, queues, accept=["json"], no_ack=True)
            consumer.register_callback(lambda body, _, name=name: heard.append((name, body)))
            consumer.consume()
            consumers.append(consumer)

        def both_heard(body: str) -> bool:
            # A subscription may come after the first broadcasts, which are not kept.
            with post.connect(stock=True) as stock:
                Producer(stock.channel(), exchange, serializer="json").publish(body)
            for connection in (one, other):
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue
            return {("one", body), ("other", body)} <= set(heard)

        eventually(lambda: both_heard("hello"), "both hear it")


# -- convenience -----------------------------------------------------------------------------------


def test_a_simple_queue_puts_gets_and_requeues(post: Post) -> None:
    with post.connect() as connection, closing(connection.SimpleQueue(post.queue())) as queue:
        queue.put({"n": 1}, headers={"a": "b"})
        message = queue.get(timeout=5)
        assert (message.payload, message.headers) == ({"n": 1}, {"a": "b"})
        message.requeue()
        again = queue.get(timeout=5)
        again.ack()
        with pytest.raises(queue.Empty):
            queue.get_nowait()
    assert not post.redis.exists(
        post.options.get("global_keyprefix", "") + post.options["unacked_key"]
    )


def test_a_queue_that_expires_is_kept_by_putting_and_by_getting(post: Post) -> None:
    queue = Queue(post.queue(), routing_key=post.queue(), expires=EXPIRES_S)
    prefix = post.options.get("global_keyprefix", "")
    keys = [prefix + post.queue() + step for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
    with post.connect() as connection:
        channel = connection.channel()
        producer = Producer(channel, serializer="json")
        for priority in (0, 3, 6, 9, 9):
            producer.publish("a", routing_key=queue.name, priority=priority, declare=[queue])
        assert all(0 < post.redis.pttl(key) <= EXPIRES_S * 1000 for key in keys)
        for key in keys:
            post.redis.pexpire(key, 5_000)
        assert queue(channel).get(no_ack=True) is not None
        assert post.redis.pttl(keys[-1]) > 5_000


def test_a_batch_of_publications_is_sent_together_and_arrives_in_order(post: Post) -> None:
    queue = Queue(post.queue(), routing_key=post.queue())
    with post.connect() as connection:
        queue(connection.default_channel).declare()
        producer = Producer(connection.channel(), serializer="json")
        with producer.batch():
            for number in range(5):
                producer.publish(number, routing_key=queue.name)
            assert not post.redis.exists(post.options.get("global_keyprefix", "") + queue.name)
        assert received(connection, [queue], 5) == list(range(5))


# -- the event loop --------------------------------------------------------------------------------


def test_acknowledgements_that_come_from_elsewhere_make_room_for_the_next_message(
    post: Post,
) -> None:
    post.send(0, 1, 2)
    hub, acknowledged = Hub(), []

    def acknowledge(message: Any) -> None:
        message.ack()
        acknowledged.append(message.payload)

    def take(_: Any, message: Any) -> None:
        threading.Timer(0.05, hub.call_soon, (acknowledge, message)).start()

    queue = Queue(post.queue(), routing_key=post.queue())
    with post.connect() as connection:
        with Consumer(connection, [queue], callbacks=[take], accept=["json"], prefetch_count=1):
            connection.register_with_event_loop(hub)

            def all_came() -> bool:
                hub.run_once()
                return len(acknowledged) == 3

            eventually(all_came, "one after the other")
        hub.close()
    assert acknowledged == [0, 1, 2]


def test_a_connection_that_was_made_again_between_two_ticks_consumes_on(post: Post) -> None:
    with post.taking(prefetch_count=1) as taken:
        taken.turn(2)
        for number in range(3):
            consuming = taken.channel.client.connection
            consuming.disconnect()
            consuming.connect()
            post.send(number)
            taken.await_count(number + 1)
            taken.messages[-1].ack()
    assert taken.bodies == [0, 1, 2]


def test_a_connection_that_answers_no_more_is_dropped_and_nothing_is_lost(
    servers: Servers,
) -> None:
    """Half open: the socket stands, the server is gone; no timeout of a socket ends that wait."""
    with Redis.from_url(servers.redis_url()) as client:
        port = client.connection_pool.connection_kwargs["port"]
    post = Post(servers.redis_url())
    with Proxy("127.0.0.1", port) as proxy:
        options = {**post.options, **post.own, "health_check_interval": 1, "socket_timeout": 2}
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with Connection(url, transport=OURS, transport_options=options) as connection:
            got: list[Any] = []
            queue = Queue(post.queue(), routing_key=post.queue())
            with Consumer(connection, [queue], on_message=got.append):
                _turn(connection)
                consuming = connection.default_channel.client.connection
                stood = consuming._sock
                proxy.stall()
                post.send("a")
                _turn_until(connection, lambda: bool(got))
                assert consuming._sock is not stood
                got[0].ack()
    assert not post.unacked()
    post.close()


def _turn(connection: Connection) -> None:
    try:
        connection.drain_events(timeout=0.2)
    except (TimeoutError, *connection.connection_errors):
        return


def _turn_until(connection: Connection, ask: Any) -> None:
    def asked() -> bool:
        if not ask():
            _turn(connection)
        return bool(ask())

    eventually(asked, "the consumer takes it up again")
