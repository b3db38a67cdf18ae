"""The queues of installed apps and their keys, as the apps' workers announce them.

Relay and reconciler do not know an app's configuration. So its workers store in Redis which queues
they read, under which keys, and a mark from their broker. A process that finds another mark at its
own broker knows that it uses another broker.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import redis

from taskyard.broker.redis_keys import Layout
from taskyard.clock import us_of

__all__ = ["RABBIT", "Place", "Places", "broker_mark", "find_mark"]

# No Redis holds this as a mark; RabbitMQ has no keys that could identify a broker.
RABBIT: Final = "rabbitmq"
# The fields that this version understands; a later version may add fields, which are ignored.
_VERSION: Final = 1
# A worker reports every minute: an entry this much older than the newest is of workers that ended.
_FORMER_US: Final = us_of(300)
# As long as letters of a queue that no worker reads any more may wait for an operator.
_FORGOTTEN_US: Final = us_of(30 * 86_400)


@dataclass(frozen=True, slots=True)
class Place:
    """One queue as its workers read it; `mark` is the mark of their broker."""

    queue: str
    mark: str
    layout: Layout
    seen_us: int = 0


class Places:
    """The announcements of all workers of a namespace, in the Redis of the records."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self.key = f"{namespace}:places"

    def report(self, places: Iterable[Place]) -> None:
        """Store the queues that a worker reads; delete those not announced for a month."""
        with self._client.pipeline(transaction=False) as pipe:
            for place in places:
                pipe.hset(
                    self.key, _field(place), json.dumps({"version": _VERSION, **asdict(place)})
                )
            pipe.execute()
        known = self._read()
        newest_us = max((place.seen_us for _, place in known), default=0)
        old = [field for field, place in known if place.seen_us < newest_us - _FORGOTTEN_US]
        if old:
            self._client.hdel(self.key, *old)

    def all(self) -> list[Place]:
        """Return every announced queue, with several entries for a queue if workers disagree."""
        by_queue: dict[str, list[Place]] = {}
        for _, place in self._read():
            by_queue.setdefault(place.queue, []).append(place)
        return [place for found in by_queue.values() for place in _current(found)]

    def of(self, queue: str) -> list[Place]:
        """Return all announced entries for one queue.

        None if the queue is unknown, several if workers disagree.
        """
        return [place for place in self.all() if place.queue == queue]

    def _read(self) -> list[tuple[bytes, Place]]:
        raw: Any = self._client.hgetall(self.key)
        return [(field, _place(json.loads(value))) for field, value in raw.items()]


def broker_mark(broker: redis.Redis, namespace: str) -> str:
    """Return the mark of a Redis broker; the first worker sets it."""
    key = _mark_key(namespace)
    broker.set(key, uuid.uuid4().hex, nx=True)
    return find_mark(broker, namespace)


def find_mark(broker: redis.Redis, namespace: str) -> str:
    """Return the mark of a Redis broker; empty if no worker of an installed app has set one."""
    raw: Any = broker.get(_mark_key(namespace))
    return raw.decode() if isinstance(raw, bytes) else str(raw or "")


def _mark_key(namespace: str) -> str:
    return f"{namespace}:broker"


def _current(found: Sequence[Place]) -> list[Place]:
    newest_us = max(place.seen_us for place in found)
    return [place for place in found if place.seen_us >= newest_us - _FORMER_US]


def _field(place: Place) -> str:
    location = json.dumps([place.mark, asdict(place.layout)], sort_keys=True).encode()
    return f"{place.queue}\n{hashlib.sha256(location).hexdigest()[:12]}"


def _place(document: dict[str, Any]) -> Place:
    known = {field.name for field in fields(Layout)}
    layout = {name: value for name, value in document["layout"].items() if name in known}
    layout["steps"] = tuple(layout["steps"])
    return Place(document["queue"], document["mark"], Layout(**layout), int(document["seen_us"]))
