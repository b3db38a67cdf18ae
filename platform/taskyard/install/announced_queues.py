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

__all__ = ["RABBIT", "AnnouncedQueue", "AnnouncedQueues", "broker_mark", "find_mark"]

# No Redis holds this as a mark; RabbitMQ has no keys that could identify a broker.
RABBIT: Final = "rabbitmq"
# The fields that this version understands; a later version may add fields, which are ignored.
_VERSION: Final = 1
# A worker reports every minute: an entry this much older than the newest is of workers that ended.
_FORMER_US: Final = us_of(300)
# As long as letters of a queue that no worker reads any more may wait for an operator.
_FORGOTTEN_US: Final = us_of(30 * 86_400)


@dataclass(frozen=True, slots=True)
class AnnouncedQueue:
    """A queue as some workers read it: `layout` is its keys, `mark` the mark of their broker."""

    queue: str
    mark: str
    layout: Layout
    seen_us: int = 0


class AnnouncedQueues:
    """The announcements of all workers of a namespace, in the Redis of the records."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self.key = f"{namespace}:places"

    def report(self, entries: Iterable[AnnouncedQueue]) -> None:
        """Store the queues that a worker reads; delete those not announced for a month."""
        with self._client.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hset(
                    self.key, _field(entry), json.dumps({"version": _VERSION, **asdict(entry)})
                )
            pipe.execute()
        known = self._read()
        newest_us = max((entry.seen_us for _, entry in known), default=0)
        old = [field for field, entry in known if entry.seen_us < newest_us - _FORGOTTEN_US]
        if old:
            self._client.hdel(self.key, *old)

    def all(self) -> list[AnnouncedQueue]:
        """Return the current announcements of all queues, grouped by queue."""
        by_queue: dict[str, list[AnnouncedQueue]] = {}
        for _, entry in self._read():
            by_queue.setdefault(entry.queue, []).append(entry)
        return [entry for found in by_queue.values() for entry in _current(found)]

    def of(self, queue: str) -> list[AnnouncedQueue]:
        """Return the current announcements of one queue.

        The list is empty if no worker has announced the queue, and has several entries if workers
        read it under different keys or at different brokers.
        """
        return [entry for entry in self.all() if entry.queue == queue]

    def _read(self) -> list[tuple[bytes, AnnouncedQueue]]:
        raw: Any = self._client.hgetall(self.key)
        return [(field, _read_entry(json.loads(value))) for field, value in raw.items()]


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


def _current(found: Sequence[AnnouncedQueue]) -> list[AnnouncedQueue]:
    newest_us = max(entry.seen_us for entry in found)
    return [entry for entry in found if entry.seen_us >= newest_us - _FORMER_US]


def _field(entry: AnnouncedQueue) -> str:
    location = json.dumps([entry.mark, asdict(entry.layout)], sort_keys=True).encode()
    return f"{entry.queue}\n{hashlib.sha256(location).hexdigest()[:12]}"


def _read_entry(document: dict[str, Any]) -> AnnouncedQueue:
    known = {field.name for field in fields(Layout)}
    layout = {name: value for name, value in document["layout"].items() if name in known}
    layout["steps"] = tuple(layout["steps"])
    return AnnouncedQueue(
        document["queue"], document["mark"], Layout(**layout), int(document["seen_us"])
    )
