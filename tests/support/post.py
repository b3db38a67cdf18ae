"""kombu connections to one server: with our transport or kombu's own, under names of one test."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu import Connection, Consumer, Producer, Queue

from support.waiting import SOON_S, eventually
from taskyard.transport import Owner, read_owners

__all__ = ["OURS", "Post", "Taken"]

OURS = "taskyard.transport:Transport"


class Taken:
    """A consumer that keeps what it is given: messages in order, acknowledged when told to."""

    def __init__(self, connection: Connection, queues: list[str], **options: Any) -> None:
        self.messages: list[Any] = []
        self.connection = connection
        self.channel = connection.channel()
        self.consumer = Consumer(
            self.channel,
            [Queue(name, exchange="", routing_key=name) for name in queues],
            on_message=self.messages.append,
            **options,
        )
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        """What the messages say, in the order of their delivery."""
        return [json.loads(message.body) for message in self.messages]

    def turn(self, times: int = 1) -> None:
        """Let the connection work."""
        for _ in range(times):
            try:
                self.connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue

    def await_count(self, count: int, within_s: float = SOON_S) -> list[Any]:
        """Drain until `count` messages have come."""
        self.await_that(lambda: len(self.messages) >= count, f"{count} messages", within_s)
        return self.bodies

    def await_that(self, ask: Callable[[], object], what: str, within_s: float = SOON_S) -> None:
        """Drain until `ask` is true."""

        def asked() -> object:
            if not ask():
                self.turn()
            return ask()

        eventually(asked, what, within_s=within_s)


class Post:
    """One server under names of this test's own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.name = f"p{uuid.uuid4().hex[:8]}"
        self.redis = redis.Redis.from_url(url)
        self.options: dict[str, Any] = {
            "unacked_key": f"{self.name}:unacked",
            "unacked_index_key": f"{self.name}:unacked_index",
            "unacked_mutex_key": f"{self.name}:unacked_mutex",
            "unacked_restore_throttle": 1,
            "unacked_restore_interval": 1,
            "visibility_timeout": 600,
            **options,
        }
        # Ours alone; kombu's own transport would not know them.
        self.own = {"heartbeats_key": f"{self.name}:heartbeats"}

    def queue(self, name: str = "q") -> str:
        """The full name of a queue."""
        return f"{self.name}.{name}"

    @contextmanager
    def connect(self, *, stock: bool = False, **options: Any) -> Iterator[Connection]:
        """A connection with our transport, or with kombu's own."""
        own = {} if stock else self.own
        transport = None if stock else OURS
        connection = Connection(
            self.url, transport=transport, transport_options={**self.options, **own, **options}
        )
        try:
            yield connection
        finally:
            connection.release()

    @contextmanager
    def taking(
        self, *queues: str, stock: bool = False, options: dict[str, Any] | None = None, **how: Any
    ) -> Iterator[Taken]:
        """A consumer of `queues` (default `q`); `how` goes to kombu's Consumer."""
        names = [self.queue(name) for name in queues or ("q",)]
        with self.connect(stock=stock, **options or {}) as connection:
            yield Taken(connection, names, **how)

    def send(self, *bodies: Any, queue: str = "q", stock: bool = True, **properties: Any) -> None:
        """Publish with kombu's own transport, as any Celery client would."""
        with self.connect(stock=stock) as connection:
            producer = Producer(connection.channel(), serializer="json")
            for body in bodies:
                producer.publish(body, routing_key=self.queue(queue), **properties)

    def waiting(self, queue: str = "q") -> list[bytes]:
        """The raw entries of a queue, the next to be served first."""
        steps = ("", "\x06\x163", "\x06\x166", "\x06\x169")
        return [
            raw
            for step in steps
            for raw in reversed(self.redis.lrange(self.queue(queue) + step, 0, -1))
        ]

    def unacked(self) -> dict[bytes, bytes]:
        """Delivery tag -> stored message of everything that is out."""
        found: dict[bytes, bytes] = self.redis.hgetall(self.options["unacked_key"])
        assert len(found) == self.redis.zcard(self.options["unacked_index_key"])
        return found

    def owners(self) -> dict[str, Owner]:
        """Every owner of a heartbeat, by name."""
        _, found = read_owners(self.redis, f"{self.name}:heartbeats")
        return {owner.name: owner for owner in found}

    def silence(self, owner: str, ago_s: float = 3600) -> None:
        """Let an owner's last heartbeat be long ago, where it is known."""
        key = f"{self.name}:heartbeats"
        beat = self.redis.hget(key, owner)
        if beat is None:
            return
        us, _, description = beat.partition(b" ")
        past = str(max(int(us) - int(ago_s * 1_000_000), 0)).encode()
        self.redis.hset(key, owner, past + b" " + description)

    def close(self) -> None:
        """Leave nothing in the shared server."""
        keys = list(self.redis.scan_iter(f"*{self.name}*", count=1000))
        if keys:
            self.redis.delete(*keys)
        self.redis.close()
