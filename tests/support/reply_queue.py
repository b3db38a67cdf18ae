"""A service's own queue for replies, read through kombu."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kombu import Queue

from taskyard.broker import connection
from taskyard.settings import Settings

__all__ = ["ReplyQueue", "Taken", "declared"]


@dataclass(frozen=True)
class Taken:
    """A reply that the service has taken."""

    body: dict[str, Any]
    properties: dict[str, Any]
    headers: dict[str, Any]
    content_type: str


class ReplyQueue:
    """A declared queue, and what it has received."""

    def __init__(self, name: str, queue: Any) -> None:
        self.name, self._queue = name, queue

    def take(self) -> list[Taken]:
        """Return the replies that are there, oldest first; they are gone then."""
        found = iter(lambda: self._queue.get(no_ack=True), None)
        return [Taken(m.payload, m.properties, m.headers, m.content_type) for m in found]


@contextmanager
def declared(settings: Settings) -> Iterator[ReplyQueue]:
    """Declare a queue as a service does, and delete it in the end."""
    name = f"replies.{uuid.uuid4().hex}"
    with connection(settings) as broker:
        queue = Queue(name, channel=broker.default_channel)
        queue.declare()
        yield ReplyQueue(name, queue)
        queue.delete()
