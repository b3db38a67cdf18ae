"""Closing what was connected to a server that died: nothing is raised, nothing is lost."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery.utils.threads import bound_open_broker_sockets
from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous.hub import Hub
from redis.exceptions import ConnectionError as RedisConnectionError

from servers import RedisServer, Servers
from support.post import OURS, Post
from support.proxy import Proxy
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.jobs.states import State

SENT = 6
RESTARTS = 3


@pytest.fixture(scope="module")
def way(servers: Servers) -> Iterator[Proxy]:
    direct = urlsplit(servers.redis_url())
    with Proxy(str(direct.hostname), int(direct.port or 0)) as running:
        yield running


@pytest.fixture
def post(servers: Servers) -> Iterator[Post]:
    opened = Post(servers.redis_url())
    yield opened
    opened.close()


@dataclass(frozen=True)
class Doing:
    """What a consumer is at when its server dies."""

    holds: bool = False
    acknowledgements: str = ""
    returns: bool = False
    listens: bool = False
    pops: bool = False

    def __str__(self) -> str:
        facts = {"holds": self.holds, f"acks-{self.acknowledgements}": self.acknowledgements}
        facts |= {"returns": self.returns, "listens": self.listens, "pops": self.pops}
        return "+".join(name for name, true in facts.items() if true) or "idle"


class Consuming:
    """One consumer in an event loop, with everything that Celery's has."""

    def __init__(self, post: Post, way: Proxy) -> None:
        self.post, self.way = post, way
        self.connection = Connection(
            f"redis://127.0.0.1:{way.port}/0",
            transport=OURS,
            transport_options={**post.options, **post.own, "socket_timeout": 10},
        )
        self.hub = Hub()
        self.taken: list[Any] = []
        queue = Queue(post.queue(), routing_key=post.queue())
        self.channel = self.connection.default_channel
        self.consumer = Consumer(self.channel, [queue], on_message=self.taken.append)

    def listen(self) -> None:
        """Answer remote control, through a queue that its channel deletes when it closes."""
        box = f"{self.post.name}.box"
        exchange = Exchange(f"{self.post.name}.all", type="fanout")
        channel = self.connection.channel()
        self.box = Consumer(channel, [Queue(box, exchange, auto_delete=True)], no_ack=True)
        self.box.consume()

    def begin(self, doing: Doing) -> list[int]:
        """Bring it there; the numbers of the messages that were acknowledged or are to be."""
        if doing.listens:
            self.listen()
        held = bool(doing.holds or doing.acknowledgements or doing.returns)
        self.consumer.qos(prefetch_count=SENT // 2)
        self.consumer.consume()
        self.connection.register_with_event_loop(self.hub)
        if held:
            self.post.send(*range(SENT))
            self.turn_until(lambda: len(self.taken) == SENT // 2)
        else:
            self.turn_until(lambda: self.channel.pops.wake.waiting)
        # From now on the server hears and says nothing, so whatever is sent stays on its way.
        self.way.swallow()
        self._expect_silence()
        if not held:
            self.post.send(*range(SENT))
        done = [self.taken.pop(0) for _ in range(2)] if doing.acknowledgements else []
        for message in done:
            message.ack()
        if doing.returns:
            self.channel.qos.giving_back.due[self.taken[0].delivery_tag] = time.monotonic() + 60
        if doing.acknowledgements == "travel" or doing.pops:
            self.channel._in_poll = None
            self.channel.pops.wake.waiting = False
            self.connection.transport.cycle._register_BRPOP(self.channel)
            assert not self.channel.qos._done
        return [json.loads(message.body) for message in done]

    def _expect_silence(self) -> None:
        """Wait a second at most for each answer; a busy machine needed more before."""
        bound_open_broker_sockets(self.connection, 1)
        for channel in self.connection.transport.channels:
            channel.socket_timeout = 1
            channel.pool.connection_kwargs["socket_timeout"] = 1

    def turn_until(self, ask: Callable[[], bool]) -> None:
        """Let the loop run until `ask` is true."""

        def asked() -> bool:
            if not ask():
                self.hub.run_once()
            return ask()

        self.hub.call_repeatedly(0.05, lambda: None)
        eventually(asked, "the consumer is where it should be")


HELD = [
    Doing(True, acknowledgements, returns, listens=returns)
    for acknowledgements, returns in itertools.product(["", "wait", "travel"], [False, True])
]
STATES = [Doing(), Doing(listens=True), Doing(pops=True), Doing(pops=True, listens=True), *HELD]


def dead(way: Proxy) -> None:
    way.die()
    way.flow()


def cut(way: Proxy) -> None:
    """Every connection is reset, and the server answers new ones."""
    way.cut()
    way.flow()


def silent(way: Proxy) -> None:
    """The proxy swallows already."""


# Of a silent server only the busiest: each step waits for its answer as long as it may.
CASES = [pytest.param(doing, fault) for doing in STATES for fault in (dead, cut)]
CASES += [pytest.param(doing, silent, marks=pytest.mark.slow) for doing in (STATES[3], STATES[-1])]


@pytest.mark.parametrize(
    ("doing", "fault"), CASES, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_a_consumer_closes_in_every_state_and_what_it_held_is_there(
    post: Post, way: Proxy, doing: Doing, fault: Callable[[Proxy], None]
) -> None:
    consuming = Consuming(post, way)
    acknowledged = consuming.begin(doing)
    fault(way)
    try:
        # What Celery's consumer does after a loss, and what its shutdown does once more.
        consuming.connection.collect(socket_timeout=1)
        consuming.connection.close()
        consuming.channel.close()
        consuming.connection.close()
        with pytest.raises(RedisConnectionError, match="is closed; open another one"):
            consuming.channel._create_client()
    finally:
        way.revive()
        way.flow()
        consuming.hub.close()
    came = all_that_is_there(post)
    assert len(came) == len(set(came)), "nothing is there twice"
    assert set(range(SENT)) - set(acknowledged) <= set(came), "nothing is lost"


def all_that_is_there(post: Post) -> list[int]:
    """What a consumer gets once the owner of before counts as dead."""
    for owner in post.owners():
        post.silence(owner)
    post.redis.delete(f"{post.name}:unacked_mutex")
    with post.taking() as taken:
        taken.channel.qos.restore_visible()
        taken.await_that(
            lambda: len(post.unacked()) == len(taken.messages) and not post.waiting(), "all came"
        )
        for message in taken.messages:
            message.ack()
        return list(taken.bodies)


def test_a_channel_closed_by_the_message_it_delivers_returns_the_rest(post: Post) -> None:
    post.send(*range(SENT))
    with post.connect() as connection:
        channel = connection.channel()
        got: list[int] = []

        def take(message: Any) -> None:
            got.append(json.loads(message.body))
            channel.close()

        Consumer(channel, [Queue(post.queue())], on_message=take).consume()
        eventually(lambda: got or _drained(connection), "one message")
    assert got == [0]
    assert [json.loads(raw)["headers"].get("redelivered") for raw in post.waiting()] == [
        True,
        *[None] * (SENT - 1),
    ]
    assert not post.unacked()


def _drained(connection: Connection) -> bool:
    try:
        connection.drain_events(timeout=0.05)
    except TimeoutError:
        return False
    return True


def test_what_a_pop_brings_while_its_channel_closes_goes_back_as_it_came(post: Post) -> None:
    post.send(1, 2)
    with post.taking(prefetch_count=4) as taken:
        taken.turn()
        taken.channel._in_poll = None
        taken.channel.pops.wake.waiting = False
        taken.connection.transport.cycle._register_BRPOP(taken.channel)
        taken.channel.close()
    assert not post.unacked()
    bodies = [json.loads(raw) for raw in post.waiting()]
    assert len(bodies) == 2
    assert taken.messages or [body["headers"].get("redelivered") for body in bodies] == [None, None]


def test_a_closed_connection_leaves_nothing_in_the_event_loop(post: Post) -> None:
    hub = Hub()
    for _ in range(3):
        with post.connect() as connection:
            connection.register_with_event_loop(hub)
            with closing(connection.channel()):
                assert len(hub.on_tick) == 1
    assert not hub.on_tick
    hub.close()


def test_a_worker_outlives_every_restart_of_its_redis(
    server: RedisServer, start_worker: Callable[..., Worker]
) -> None:
    with closing(ServerHarness(fresh_settings(server.url))) as harness:
        worker = start_worker(settings=harness.settings, queues=("exec",))
        worker.await_log(" ready.")
        jobs = []
        for count in range(1, RESTARTS + 1):
            begun = len(harness.notes.order())
            jobs += [harness.act() for _ in range(40)]
            # In full swing acknowledgements travel with the pops.
            eventually(lambda: len(harness.notes.order()) > begun + 8, "jobs run")  # noqa: B023
            server.kill()
            lost = "Connection to broker lost"
            eventually(lambda: worker.log.count(lost) >= count, "it is noticed")  # noqa: B023
            server.start()
        for job in jobs:
            assert harness.await_end(job) is State.COMPLETED, worker.log[-4000:]
        assert worker.running
        assert "Unrecoverable" not in worker.log
