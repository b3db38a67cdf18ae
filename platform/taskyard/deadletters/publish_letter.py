"""Publish a dead letter: the broker confirms it, or an error is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property, partial
from time import monotonic
from typing import Any, Final, Protocol

import redis
from amqp.exceptions import NotFound
from kombu import Connection, Producer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.broker import connection, is_amqp
from taskyard.broker.confirmed_publish import publish_confirmed
from taskyard.broker.separate_connection import OwnConnection
from taskyard.deadletters.dead_letter_exchange import exchange, mirror_queue, review_queue
from taskyard.deadletters.key_prefixes import LetterPrefixes
from taskyard.deadletters.letter_copies import KeptLetters
from taskyard.errors import PublishFailed, Unroutable
from taskyard.queues import inquire
from taskyard.settings import Settings
from taskyard.store import connect as connect_redis
from taskyard.wire.letter_envelope import Letter
from taskyard.wire.redacted_logs import logger

__all__ = ["REVIEW_LIMIT", "LetterBox", "count_waiting"]

log = logger(__name__)

_NOTE_EVERY_S: Final = 60.0
# RabbitMQ 4 takes messages of 16 MiB at most. A letter holds the job's message as base64, and its
# arguments a second time; kombu notes the compression in a header, and decompresses by it.
_COMPRESSED_OVER_BYTES: Final = 8 * 1024 * 1024
# A review queue without a consumer must not fill the broker; Postgres has all letters.
REVIEW_LIMIT: Final = 10_000
JSON: Final = {"content_type": "application/json", "content_encoding": "utf-8"}


class Post(Protocol):
    """Publishes dead letters to one kind of broker, and waits for the confirmation."""

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue on the channel of a connection that was just opened."""
        ...

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish to the exchange and, if escalated, to the review queue.

        Returns when at least one queue has the dead letter; raises `Unroutable` if no queue took
        it, or an error of the broker's client.
        """
        ...


class AmqpPost:
    """Publishes dead letters to RabbitMQ; waits up to `publish_timeout_s` for each confirmation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange, self._queue = exchange(settings).name, mirror_queue(settings)

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue and its binding."""
        self._queue(channel).declare()

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish the dead letter; raises `Unroutable`, or an error of the client."""
        body = letter.encode()
        self._publish(producer, body, exchange=self._exchange, routing_key=letter.routing_key())
        if letter.escalate_to is not None:
            review = review_queue(self._settings, letter.escalate_to, REVIEW_LIMIT)
            review(producer.channel).declare()
            self._publish(producer, body, exchange="", routing_key=review.name)

    def _publish(self, producer: Producer, body: bytes, **route: str) -> None:
        options: dict[str, Any] = {**route, **JSON}
        if len(body) > _COMPRESSED_OVER_BYTES:
            options["compression"] = "zlib"
        publish_confirmed(producer, body, self._settings.publish_timeout_s, **options)


class RedisPost:
    """Publishes dead letters to Redis, where kombu's exchange is a set of bindings.

    Each queue that is bound gets a copy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange, self._queue = exchange(settings), mirror_queue(settings)

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue and its binding."""
        self._queue(channel).declare()

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish the dead letter; raises `Unroutable`, or an error of the client."""
        body, key = letter.encode(), letter.routing_key()
        self._check_bound(producer.channel, key)
        producer.publish(body, exchange=self._exchange, routing_key=key, **JSON)
        if letter.escalate_to is not None:
            self._escalate(producer, letter.escalate_to, body)

    def _check_bound(self, channel: Any, key: str) -> None:
        """Check that the mirror's own queue is bound to the exchange.

        A dead letter in any other bound queue does not reach Postgres.
        """
        mirror = self._queue.name
        if mirror in channel._lookup(self._exchange.name, key):
            return
        # If the binding is missing (a flushed broker), kombu would drop the letter without an
        # error. kombu remembers what this process bound, and binds again only after that is removed
        # here.
        channel.state.binding_delete(mirror, self._exchange.name, self._queue.routing_key)
        self.prepare(channel)
        bound = channel._lookup(self._exchange.name, key)
        if mirror not in bound:
            raise Unroutable(
                f"expected queue {mirror!r} to take the letter with routing key {key!r}, but "
                f"exchange {self._exchange.name!r} leads to {', '.join(bound) or 'no queue'} even "
                "after the queue was declared. Find out what deletes or evicts the keys "
                f"{channel.global_keyprefix}_kombu.binding.* in Redis (maxmemory-policy must be "
                "noeviction), then repeat"
            )

    def _escalate(self, producer: Producer, queue: str, body: bytes) -> None:
        name = self._settings.broker_name(queue)
        producer.publish(body, exchange="", routing_key=name, **JSON)
        producer.channel.keep_newest(name, REVIEW_LIMIT)


def count_waiting(settings: Settings) -> int | None:
    """Return how many dead letters wait in the mirror's queue; None if RabbitMQ does not say.

    Dead letters that a mirror has taken and not acknowledged are not counted.
    """
    with connection(settings) as opened:
        lost = (OperationalError, OSError, *opened.connection_errors, *opened.channel_errors)
        try:
            return int(inquire(opened, mirror_queue(settings).name).message_count)
        except NotFound:
            return 0
        except lost:
            return None


class LetterBox:
    """Publishes dead letters to the dead-letter exchange; threads may share this object.

    `connect` makes the connection to the broker, by default to the broker in the settings.
    `keyprefix` is the prefix of the dead letters' keys at a Redis broker, if it is not Taskyard's
    own.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], Connection] | None = None,
        keyprefix: str | None = None,
    ) -> None:
        self._settings = settings
        amqp = is_amqp(settings)
        self._post: Post = AmqpPost(settings) if amqp else RedisPost(settings)
        self._prefix = None if amqp else keyprefix
        self._noted_at = float("-inf")
        self._own = OwnConnection(connect or partial(connection, settings), self._post.prepare)
        self._lock = threading.Lock()

    @cached_property
    def _records(self) -> redis.Redis:
        return connect_redis(self._settings.need_redis_url())

    @cached_property
    def _kept(self) -> KeptLetters:
        return KeptLetters(self._records, self._settings)

    def post(self, letter: Letter) -> None:
        """Publish `letter`; raises `PublishFailed` unless at least one bound queue took it.

        Then Redis gets a copy. If that fails, the failure is only logged, since the dead letter is
        safe.
        """
        with self._lock:
            try:
                self._note_prefix()
                self._post.send(self._own.producer(), letter)
            except self._errors() as error:
                self._own.abandon()
                raise PublishFailed(
                    f"letter {letter.letter_id} was not published: {error}"
                ) from error
        # One line for each dead letter, whatever its category: Celery's own logs INFO, or nothing.
        log.warning(
            "job %s (%s) became dead letter %s, category %s: %.500s",
            letter.job_id,
            letter.job_type,
            letter.letter_id,
            letter.category,
            letter.error_message,
            extra={"action": "dead_lettered", "job_id": letter.job_id},
        )
        self._kept.keep(letter)

    def _errors(self) -> tuple[type[BaseException], ...]:
        return (RedisError, *self._own.errors())

    def _note_prefix(self) -> None:
        """Store the key prefix before the dead letter, so that the mirror searches under it.

        The prefix is stored again after a while, in case the records' Redis was flushed.
        """
        now = monotonic()
        if self._prefix is not None and now - self._noted_at >= _NOTE_EVERY_S:
            LetterPrefixes(self._records, self._settings.namespace).note(self._prefix)
            self._noted_at = now

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._own.close()
