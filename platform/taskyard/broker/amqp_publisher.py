"""Publish messages to RabbitMQ and wait for its confirmation.

Messages are mandatory: RabbitMQ returns one that no queue takes. Delayed messages wait in delay
exchanges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from math import ceil
from typing import Any, Final

from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.native_delayed_delivery import calculate_routing_key, level_name

from taskyard.broker.batch_confirms import Batch, Confirms, Parcel
from taskyard.broker.confirmed_publish import publish_confirmed
from taskyard.broker.connection import connection
from taskyard.broker.delay_exchanges import (
    bind_delay,
    declare_delay,
    delay_prefix,
    delay_type,
    waits_apart,
)
from taskyard.broker.outgoing_message import Outgoing
from taskyard.broker.queue_name_and_priority import own_priority, queue_name
from taskyard.broker.republished_headers import headers_of, own_headers
from taskyard.broker.separate_connection import OwnConnection
from taskyard.clock import seconds_of, to_us, us_of
from taskyard.errors import PublishFailed, Unroutable
from taskyard.queues import rabbit_priority, rabbit_queues
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import unpack
from taskyard.wire.stamp_header import Stamp

__all__ = ["LONGEST_WAIT_S", "PARKED_S", "AmqpPublisher"]

# The highest level of the delay exchanges: 2^27 s are four years.
_TOP_LEVEL: Final = 27
LONGEST_WAIT_S: Final = 2 ** (_TOP_LEVEL + 1) - 1
"""All levels together, eight and a half years: a longer delay would lead to no queue."""

PARKED_S: Final = 30.0
"""How long a message that a switch holds waits until a worker looks again."""

# Not `user_id`: RabbitMQ refuses one that is not the publishing connection's own user.
_OWN_PROPERTIES: Final = frozenset(
    {"correlation_id", "reply_to", "message_id", "timestamp", "type", "app_id"}
)


class AmqpPublisher:
    """Publishes to RabbitMQ over one connection, which is reopened when it breaks.

    One thread at a time may use it.
    """

    def __init__(
        self,
        settings: Settings,
        now_us: Callable[[], int] | None = None,
        connect: Callable[[], Connection] | None = None,
    ) -> None:
        self.settings = settings
        self._now_us = _own_clock_us if now_us is None else now_us
        self._lock = threading.RLock()
        self._own = OwnConnection(connect or partial(connection, settings), self._prepare)
        self._delays: set[str] = set()
        self._bound: set[tuple[str, str]] = set()
        self._confirms: Confirms | None = None

    def publish(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        strip: Iterable[str] = (),
    ) -> None:
        """Put a message into `queue`; raises `PublishFailed`."""
        options = self._at_once(message, queue, priority, stamp, strip)
        self._send(f"job {job_id}", message.body, options)

    def publish_later(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        due_us: int,
    ) -> None:
        """Delay a message at the broker by whole seconds; raises `PublishFailed`."""
        options = self._later(message, queue, priority, stamp, due_us)
        self._send(f"job {job_id}", message.body, options, delayed=queue)

    def park(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        switch: str,
        until_us: int,
    ) -> None:
        """Delay a message by `PARKED_S`, or until the end of the switch if that comes earlier.

        RabbitMQ cannot release it earlier. Raises `PublishFailed`.
        """
        soon_us = self._now_us() + us_of(PARKED_S)
        due_us = min(soon_us, until_us) if until_us else soon_us
        # Its age counts from the time when it comes back: it was not too old before.
        self.publish_later(
            message,
            queue=queue,
            priority=priority,
            job_id=job_id,
            stamp=stamp.moved(seq=stamp.seq, sent_us=due_us),
            due_us=due_us,
        )

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all messages and wait for the confirmations together.

        Returns an error for each message without a confirmation. If the broker closes the
        channel because of one message, each is published alone.
        """
        batch = Batch(len(messages))
        with self._lock:
            while batch.unknown:
                reused = self._own.is_open
                try:
                    self._publish_batch(messages, batch)
                except self._own.refusals():
                    self._abandon()
                    self._publish_each(messages, batch)
                except self._own.errors() as error:
                    self._abandon()
                    # As for a single message: the server may have closed an idle connection.
                    if not reused or isinstance(error, OperationalError):
                        self._fail(messages, batch, error)
        return batch.outcomes

    def renew(self, message: RawMessage, *, job_id: str, queue: str) -> None:
        """Publish an unchanged message again, to the end of the broker's `queue`.

        Raises `PublishFailed`.
        """
        options = self._own_options(message, own_headers(message))
        options["priority"] = _given_priority(message)
        place = {"exchange": "", "routing_key": queue}
        self._send(f"job {job_id}", message.body, {**place, **options})

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Publish a reply to the service of a job to the broker's `queue`.

        Raises `Unroutable` if there is no such queue, and `PublishFailed`.
        """
        options = self._own_options(message, own_headers(message))
        place = {"exchange": "", "routing_key": queue}
        self._send(f"the reply about job {job_id}", message.body, {**place, **options})

    def close(self) -> None:
        """Close the connection to RabbitMQ."""
        with self._lock:
            self._own.close()
            self._confirms = None

    def disown(self) -> None:
        """Drop the parent's connection in the child of a fork; the child opens its own."""
        # A thread of the parent, which does not exist in this process, may hold the lock.
        self._lock = threading.RLock()
        self._own.disown()
        self._confirms = None

    def _publish_batch(self, messages: Sequence[Outgoing], batch: Batch) -> None:
        channel = self._own.producer().channel
        if self._confirms is None:
            self._confirms = Confirms(self._own.channel())
        parcels = (self._parcel(channel, messages[at], batch, at) for at in sorted(batch.unknown))
        self._confirms.publish(parcels, self.settings.publish_timeout_s)

    def _parcel(self, channel: Any, one: Outgoing, batch: Batch, place: int) -> Parcel:
        if one.due_us is None:
            options = self._at_once(one.message, one.queue, one.priority, one.stamp, one.strip)
        else:
            options = self._later(one.message, one.queue, one.priority, one.stamp, one.due_us)
            entry = self._prepare_delay(channel, one.queue, options["priority"])
            options = {"exchange": entry, **options}
        return Parcel(batch, place, one.job_id, one.message.body, options)

    def _publish_each(self, messages: Sequence[Outgoing], batch: Batch) -> None:
        for place in sorted(batch.unknown):
            one = messages[place]
            place_of: dict[str, Any] = {
                "queue": one.queue,
                "priority": one.priority,
                "job_id": one.job_id,
                "stamp": one.stamp,
            }
            try:
                if one.due_us is None:
                    self.publish(one.message, strip=one.strip, **place_of)
                else:
                    self.publish_later(one.message, due_us=one.due_us, **place_of)
            except PublishFailed as error:
                batch.settle(place, error)
            else:
                batch.settle(place)

    def _fail(self, messages: Sequence[Outgoing], batch: Batch, error: BaseException) -> None:
        for place in list(batch.unknown):
            failure = PublishFailed(f"job {messages[place].job_id} was not published: {error}")
            failure.__cause__ = error
            batch.settle(place, failure)

    def _abandon(self) -> None:
        self._own.abandon()
        self._confirms = None

    def _at_once(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> dict[str, Any]:
        name = queue_name(self.settings, queue)
        options = self._options(message, queue, priority, stamp, strip)
        return {"exchange": "", "routing_key": name, **options}

    def _later(
        self, message: RawMessage, queue: str, priority: int | None, stamp: Stamp, due_us: int
    ) -> dict[str, Any]:
        """Publish to the first delay exchange, and declare it if it does not exist yet."""
        seconds = max(1, ceil(seconds_of(due_us - self._now_us())))
        if seconds > LONGEST_WAIT_S:
            raise PublishFailed(
                f"expected a wait of at most {LONGEST_WAIT_S} s (eight and a half years), got "
                f"{seconds} s; give the message an earlier due time"
            )
        options = self._options(message, queue, priority, stamp, ("eta",))
        key = calculate_routing_key(seconds, queue_name(self.settings, queue))
        return {"routing_key": key, **options}

    def _options(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> dict[str, Any]:
        options = self._own_options(message, headers_of(message, stamp, strip))
        return {**options, "priority": self._priority(message, queue, priority)}

    def _own_options(self, message: RawMessage, headers: dict[str, Any]) -> dict[str, Any]:
        own = {k: unpack(v) for k, v in message.properties.items() if k in _OWN_PROPERTIES}
        return {
            **own,
            "headers": headers,
            "content_type": message.content_type or "application/data",
            "content_encoding": message.content_encoding or "binary",
        }

    def _send(
        self, what: str, body: bytes, options: dict[str, Any], *, delayed: str | None = None
    ) -> None:
        with self._lock:
            reused = self._own.is_open
            try:
                self._send_once(body, options, delayed)
            except Unroutable:
                raise
            except self._own.errors() as error:
                self._abandon()
                if not reused or isinstance(error, OperationalError):
                    raise PublishFailed(f"{what} was not published: {error}") from error
                # The server closed an idle connection; publishing a job's message or a reply
                # twice changes nothing.
                self._send(what, body, options, delayed=delayed)

    def _send_once(self, body: bytes, options: dict[str, Any], delayed: str | None) -> None:
        producer = self._own.producer()
        if delayed is not None:
            entry = self._prepare_delay(producer.channel, delayed, options["priority"])
            options = {"exchange": entry, **options}
        publish_confirmed(producer, body, self.settings.publish_timeout_s, **options)

    def _priority(self, message: RawMessage, queue: str, priority: int | None) -> int | None:
        configured = self.settings.queues.get(queue)
        if configured is None:
            return _given_priority(message)
        wanted = configured.default_priority if priority is None else priority
        return rabbit_priority(configured, wanted)

    def _prepare_delay(self, channel: Any, queue: str, priority: int | None) -> str:
        """Declare the exchange where a delay for `queue` begins, and return its name."""
        properties = channel.connection.server_properties
        kind, apart = delay_type(properties), waits_apart(properties, priority)
        prefix = delay_prefix(self.settings, kind, apart=apart)
        if prefix not in self._delays:
            declare_delay(channel, self.settings, kind, prefix)
            self._delays.add(prefix)
        if queue not in self.settings.queues and (prefix, queue) not in self._bound:
            bind_delay(channel, prefix, queue)
            self._bound.add((prefix, queue))
        return str(level_name(_TOP_LEVEL, prefix))

    def _prepare(self, channel: Any) -> None:
        """Declare the work queues.

        Delay exchanges are declared when the first message needs them.
        """
        self._delays.clear()
        self._bound.clear()
        for queue in rabbit_queues(self.settings):
            queue(channel).declare()


def _given_priority(message: RawMessage) -> int | None:
    # Absent differs from 0: a quorum queue of RabbitMQ 4.3 takes a missing priority for 4.
    return own_priority(message) if "priority" in message.properties else None


def _own_clock_us() -> int:
    return to_us(datetime.now(UTC))
