"""Publish many messages to RabbitMQ and await their confirmations together."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from kombu.exceptions import OperationalError

from taskyard.broker.confirmed_publish import late, unroutable
from taskyard.errors import PublishFailed

__all__ = ["Batch", "Confirms", "Parcel"]

_PERSISTENT: Final = 2
_OF_THE_METHOD: Final = ("exchange", "routing_key")
_OF_THE_MESSAGE: Final = ("priority", "content_type", "content_encoding", "headers")
# What py-amqp raises for a message that it cannot encode, before it writes any of it.
_UNWRITABLE: Final = (TypeError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message of a batch: its position there, and the options of `Producer.publish`."""

    batch: Batch
    place: int
    job_id: str
    body: bytes
    options: dict[str, Any]

    @property
    def mark(self) -> tuple[Any, ...]:
        """Return the mark by which a message that RabbitMQ returns is recognized."""
        options = self.options
        return options["exchange"], options["routing_key"], options.get("correlation_id")


class Batch:
    """The outcome of each message in a batch: confirmed (None), failed, or still unknown."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[PublishFailed | None] = [None] * count
        self.unknown = set(range(count))

    def settle(self, place: int, error: PublishFailed | None = None) -> None:
        """Note that the message at `place` is confirmed, or why RabbitMQ did not publish it."""
        self.outcomes[place] = error
        self.unknown.discard(place)


class Confirms:
    """A channel on which batches are published; one thread at a time may use it.

    The broker confirms each message by its number: the channel's first publication is 1. After a
    call has raised an error, the channel is unusable, and the caller must abandon its connection.
    """

    def __init__(self, channel: Any) -> None:
        channel.confirm_select()
        self._channel, self._connection = channel, channel.connection
        self._published = 0
        self._waiting: dict[int, Parcel] = {}
        self._returned: set[tuple[Any, ...]] = set()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def publish(self, parcels: Iterable[Parcel], timeout_s: float) -> None:
        """Publish all messages, and note each outcome; wait at most `timeout_s` for the last one.

        Raises kombu's `OperationalError` if a confirmation does not come, and the client's
        own errors. Then messages whose outcome is unknown may still arrive.
        """
        blocked: list[Any] = []
        self._connection.on_blocked = blocked.append
        self._returned.clear()
        for parcel in parcels:
            self._send(parcel, timeout_s)
        until = monotonic() + timeout_s
        while self._waiting:
            left_s = until - monotonic()
            if left_s <= 0:
                raise OperationalError(late(timeout_s, blocked=bool(blocked)))
            try:
                self._connection.drain_events(timeout=left_s)
            except TimeoutError:
                continue

    def _send(self, parcel: Parcel, timeout_s: float) -> None:
        options = dict(parcel.options)
        route = {name: options.pop(name) for name in _OF_THE_METHOD}
        kept = [options.pop(name) for name in _OF_THE_MESSAGE]
        properties = {**options, "delivery_mode": _PERSISTENT}
        number = self._published + 1
        self._waiting[number] = parcel
        try:
            message = self._channel.prepare_message(parcel.body, *kept, properties)
            # The class' method waits for nothing; the channel's waits for each confirmation.
            publish = type(self._channel).basic_publish
            publish(self._channel, message, mandatory=True, timeout=timeout_s, **route)
        except _UNWRITABLE as error:
            del self._waiting[number]
            text = (
                f"job {parcel.job_id} was not published, because AMQP cannot carry its "
                f"message: {error!r}"
            )
            parcel.batch.settle(parcel.place, PublishFailed(text))
        else:
            self._published = number

    def _on_return(self, _: Any, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.add((exchange, routing_key, message.properties.get("correlation_id")))

    def _on_ack(self, number: int, multiple: bool) -> None:
        for parcel in self._numbered(number, multiple=multiple):
            # The broker confirms an unroutable message too, after returning it.
            error = unroutable(*parcel.mark[:2]) if parcel.mark in self._returned else None
            parcel.batch.settle(parcel.place, error)

    def _on_nack(self, number: int, multiple: bool) -> None:
        for parcel in self._numbered(number, multiple=multiple):
            text = (
                f"job {parcel.job_id} was not published: RabbitMQ refused its message (nack). "
                "The queue may be full or may have lost its nodes; see RabbitMQ's log"
            )
            parcel.batch.settle(parcel.place, PublishFailed(text))

    def _numbered(self, number: int, *, multiple: bool) -> list[Parcel]:
        numbers = [each for each in self._waiting if each <= number] if multiple else [number]
        return [self._waiting.pop(each) for each in numbers if each in self._waiting]
