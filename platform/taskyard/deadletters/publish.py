"""Publishing a letter: confirmed, or an error; never a silent loss."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Final

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from taskyard.broker import connection, is_amqp
from taskyard.broker.confirmed import abandon, publish_confirmed
from taskyard.deadletters.kept import KeptLetters
from taskyard.deadletters.topology import exchange, mirror_queue, review_queue
from taskyard.errors import LetterUnroutable, PublishFailed
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire.letters import Letter

__all__ = ["REVIEW_LIMIT", "LetterBox"]

# A review queue nobody reads must not fill the broker; the letters themselves are all in Postgres.
REVIEW_LIMIT: Final = 10_000


class LetterBox:
    """A connection of its own to the dead-letter exchange, so that no other traffic delays it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange = exchange(settings)
        self._queue = mirror_queue(settings)
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    @cached_property
    def _kept(self) -> KeptLetters:
        return KeptLetters(connect(self._settings.need_redis_url()), self._settings)

    def post(self, letter: Letter) -> None:
        """Publish `letter`; raises `PublishFailed` unless at least one bound queue took it."""
        with self._lock:
            try:
                self._post(letter)
            except self._errors() as error:
                self._abandon()
                raise PublishFailed(
                    f"letter {letter.letter_id} was not published: {error}"
                ) from error
        self._kept.keep(letter)

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            if self._connection is not None:
                self._connection.release()
                self._connection = None

    def _post(self, letter: Letter) -> None:
        producer = self._producer()
        key = letter.routing_key()
        if is_amqp(self._settings):
            self._post_confirmed(producer, letter, key)
            return
        if not producer.channel._lookup(self._exchange.name, key):
            # The binding is gone (a flushed broker): kombu would drop the letter without a word.
            self._queue(producer.channel).declare()
            if not producer.channel._lookup(self._exchange.name, key):
                raise LetterUnroutable(f"no queue takes letters with routing key {key}")
        body = letter.encode()
        options = {"content_type": "application/json", "content_encoding": "utf-8"}
        producer.publish(body, exchange=self._exchange, routing_key=key, **options)
        if letter.escalate_to is not None:
            self._escalate(producer, letter.escalate_to, body)

    def _post_confirmed(self, producer: Producer, letter: Letter, key: str) -> None:
        body, timeout_s = letter.encode(), self._settings.publish_timeout_s
        options = {"content_type": "application/json", "content_encoding": "utf-8"}
        name = self._exchange.name
        publish_confirmed(producer, body, timeout_s, exchange=name, routing_key=key, **options)
        if letter.escalate_to is not None:
            review = review_queue(self._settings, letter.escalate_to, REVIEW_LIMIT)
            review(producer.channel).declare()
            route = {"exchange": "", "routing_key": review.name}
            publish_confirmed(producer, body, timeout_s, **route, **options)

    def _escalate(self, producer: Producer, queue: str, body: bytes) -> None:
        name = self._settings.broker_name(queue)
        options = {"content_type": "application/json", "content_encoding": "utf-8"}
        producer.publish(body, exchange="", routing_key=name, **options)
        producer.channel.client.ltrim(name, 0, REVIEW_LIMIT - 1)

    def _producer(self) -> Producer:
        if self._connection is None:
            self._connection = connection(self._settings)
            self._queue(self._connection.default_channel).declare()
        return Producer(self._connection.default_channel)

    def _errors(self) -> tuple[type[BaseException], ...]:
        found: tuple[type[BaseException], ...] = (OperationalError, OSError)
        if self._connection is not None:
            found += tuple(self._connection.connection_errors)
            found += tuple(self._connection.channel_errors)
        return found

    def _abandon(self) -> None:
        if self._connection is not None:
            abandon(self._connection)
            self._connection = None
