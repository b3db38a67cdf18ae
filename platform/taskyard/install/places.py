"""Where the queues of installed apps are, as their workers say.

Relay and reconciler know nothing of an app's configuration. Its workers write down which queues
they consume, under which keys, and a mark that they found at their broker: who finds another mark
at its own talks to another broker.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import redis

from taskyard.broker.layout import Layout
from taskyard.clock import us_of

__all__ = ["RABBIT", "Place", "Places", "broker_mark", "find_mark"]

# No Redis holds this as a mark; RabbitMQ has no keys that could name one broker.
RABBIT: Final = "rabbitmq"
# What readers of this version understand; a later one may add fields, which these then ignore.
_VERSION: Final = 1
# A worker reports every minute: what is this much older than the newest was said by a former fleet.
_FORMER_US: Final = us_of(300)
# As long as letters of a queue that no worker reads any more may wait to be judged.
_FORGOTTEN_US: Final = us_of(30 * 86_400)


@dataclass(frozen=True, slots=True)
class Place:
    """One queue as its workers read it; `mark` is their broker's."""

    queue: str
    mark: str
    layout: Layout
    seen_us: int = 0


class Places:
    """What all workers of a namespace have said, in the records' Redis."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self.key = f"{namespace}:places"

    def report(self, places: Iterable[Place]) -> None:
        """Write down what a worker reads now, and drop what no worker has said for a month."""
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
        """Every place; more than one of a queue where workers disagree."""
        by_queue: dict[str, list[Place]] = {}
        for _, place in self._read():
            by_queue.setdefault(place.queue, []).append(place)
        return [place for found in by_queue.values() for place in _current(found)]

    def of(self, queue: str) -> list[Place]:
        """The places of one queue: none is known, one, or more where workers disagree."""
        return [place for place in self.all() if place.queue == queue]

    def _read(self) -> list[tuple[bytes, Place]]:
        raw: Any = self._client.hgetall(self.key)
        return [(field, _place(json.loads(value))) for field, value in raw.items()]


def broker_mark(broker: redis.Redis, namespace: str) -> str:
    """The mark of a Redis broker, set by the first worker that asks."""
    key = _mark_key(namespace)
    broker.set(key, uuid.uuid4().hex, nx=True)
    return find_mark(broker, namespace)


def find_mark(broker: redis.Redis, namespace: str) -> str:
    """The mark of a Redis broker, empty where no worker of an installed app has set one."""
    raw: Any = broker.get(_mark_key(namespace))
    return raw.decode() if isinstance(raw, bytes) else str(raw or "")


def _mark_key(namespace: str) -> str:
    return f"{namespace}:broker"


def _current(found: Sequence[Place]) -> list[Place]:
    newest_us = max(place.seen_us for place in found)
    return [place for place in found if place.seen_us >= newest_us - _FORMER_US]


def _field(place: Place) -> str:
    lies = json.dumps([place.mark, asdict(place.layout)], sort_keys=True).encode()
    return f"{place.queue}\n{hashlib.sha256(lies).hexdigest()[:12]}"


def _place(document: dict[str, Any]) -> Place:
    known = {field.name for field in fields(Layout)}
    layout = {name: value for name, value in document["layout"].items() if name in known}
    layout["steps"] = tuple(layout["steps"])
    return Place(document["queue"], document["mark"], Layout(**layout), int(document["seen_us"]))
