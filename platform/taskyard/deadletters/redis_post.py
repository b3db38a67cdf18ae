"""Letters by Redis: the push into a bound queue's list is the confirmation."""

from __future__ import annotations

from typing import Any

from kombu import Producer

from taskyard.deadletters.post import JSON, REVIEW_LIMIT
from taskyard.deadletters.topology import exchange, mirror_queue
from taskyard.errors import Unroutable
from taskyard.settings import Settings
from taskyard.wire.letters import Letter

__all__ = ["RedisPost"]


class RedisPost:
    """kombu's exchange is a set of bindings in Redis; the queues it names get a copy each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange, self._queue = exchange(settings), mirror_queue(settings)

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue and its binding."""
        self._queue(channel).declare()

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish the letter; raises `Unroutable`, or an error of the client."""
        body, key = letter.encode(), letter.routing_key()
        self._check_bound(producer.channel, key)
        producer.publish(body, exchange=self._exchange, routing_key=key, **JSON)
        if letter.escalate_to is not None:
            self._escalate(producer, letter.escalate_to, body)

    def _check_bound(self, channel: Any, key: str) -> None:
        """The mirror's own queue, by its name: a queue that others bound leads to no Postgres."""
        mirror = self._queue.name
        if mirror in channel._lookup(self._exchange.name, key):
            return
        # The binding is gone (a flushed broker): kombu would drop the letter without a word. It
        # remembers what this process bound, and declares that again only when it is forgotten.
        channel.state.binding_delete(mirror, self._exchange.name, self._queue.routing_key)
        self.prepare(channel)
        bound = channel._lookup(self._exchange.name, key)
        if mirror not in bound:
            raise Unroutable(
                f"expected queue {mirror!r} to take the letter with routing key {key!r}, but "
                f"exchange {self._exchange.name!r} leads to {', '.join(bound) or 'no queue'} even "
                "after the queue was declared. Look at what deletes or evicts keys "
                f"{channel.global_keyprefix}_kombu.binding.* in Redis (maxmemory-policy must be "
                "noeviction), then repeat"
            )

    def _escalate(self, producer: Producer, queue: str, body: bytes) -> None:
        name = self._settings.broker_name(queue)
        producer.publish(body, exchange="", routing_key=name, **JSON)
        producer.channel.keep_newest(name, REVIEW_LIMIT)
