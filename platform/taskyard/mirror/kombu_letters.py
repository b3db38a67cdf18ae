"""The mirror's queue on the broker, as a source of deliveries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kombu import Connection, Consumer, Message, Queue

from taskyard.broker import body_as_it_came, keep_packed
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import ServerUnreachable
from taskyard.mirror.delivery_port import Delivery
from taskyard.mirror.rabbit_drops import is_drop
from taskyard.transport.channel import Channel, SentinelChannel
from taskyard.wire import redact_url
from taskyard.wire.decompression import CompressionFault, unpack_body
from taskyard.wire.letter_envelope import ENVELOPE_LIMIT

__all__ = ["KombuLetters"]


class KombuLetters:
    """Takes raw messages from `queue`; only one thread may use this object.

    After a lost connection it connects again, and the broker delivers unacknowledged messages
    again.
    """

    def __init__(
        self, connection: Connection, queue: Queue, *, prefetch: int, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._prefetch = prefetch
        self._clock = clock
        self._buffer: deque[Message] = deque()
        self._consumer: Consumer | None = None

    def take(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Return up to `limit` deliveries, collected for at most `wait_s`.

        Raises `ServerUnreachable`.
        """
        with self._reachable():
            self._consume()
            self._gather(limit, self._clock.monotonic_s() + wait_s)
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        return [_delivery(message) for message in taken]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries.

        Raises `ServerUnreachable`; then the deliveries come again.
        """
        messages = [one.tag for one in deliveries if isinstance(one.tag, Message)]
        with self._reachable():
            for channel in {message.channel for message in messages}:
                _settle(channel, [message for message in messages if message.channel is channel])

    def close(self) -> None:
        """Return unacknowledged messages to the queue, and close the connection."""
        self._buffer.clear()
        self._consumer = None
        self._connection.release()

    def _consume(self) -> None:
        if self._consumer is not None:
            return
        channel = self._connection.channel()
        keep_packed(channel)
        channel.basic_qos(0, self._prefetch, False)
        self._consumer = Consumer(
            channel,
            queues=[self._queue],
            on_message=self._buffer.append,
            on_decode_error=self._keep_undecoded,
        )
        self._consumer.consume()

    def _keep_undecoded(self, message: Message, _: Exception) -> None:
        """Keep a message that kombu cannot decode, so that it is mirrored as bytes."""
        self._buffer.append(message)

    def _gather(self, limit: int, deadline_s: float) -> None:
        while len(self._buffer) < limit:
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            try:
                self._connection.drain_events(timeout=left_s)
            except TimeoutError:
                return

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        lost: tuple[type[Exception], ...] = (
            *self._connection.connection_errors,
            *self._connection.channel_errors,
        )
        try:
            yield
        except lost as error:
            self._buffer.clear()
            self._consumer = None
            self._connection.collect()
            raise ServerUnreachable(
                "the broker",
                redact_url(self._connection.as_uri(include_password=False)),
                error,
                "Start it, or correct TASKYARD_BROKER_URL. Its messages are not lost.",
            ) from error


def _settle(channel: Any, messages: Sequence[Message]) -> None:
    """Acknowledge messages of one channel; with Taskyard's transport in one round trip."""
    if not isinstance(channel, Channel | SentinelChannel):
        for message in messages:
            message.ack()
        return
    channel.qos.ack_now([message.delivery_tag for message in messages])


def _delivery(message: Message) -> Delivery:
    headers = message.headers or {}
    delivery = Delivery(
        body=body_as_it_came(message),
        headers=headers,
        properties=message.properties or {},
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        tag=message,
        delivered_before=bool((message.delivery_info or {}).get("redelivered")),
    )
    name = headers.get("compression")
    if not name or is_drop(delivery):
        return delivery  # a message that the broker dropped keeps its original bytes
    try:
        return replace(delivery, body=unpack_body(delivery.body, str(name), ENVELOPE_LIMIT))
    except CompressionFault as fault:
        return replace(delivery, fault=str(fault))
