"""The interface of every broker's publisher; the settings choose one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from taskyard.broker.amqp_publisher import AmqpPublisher
from taskyard.broker.connection import is_amqp
from taskyard.broker.outgoing_message import Outgoing
from taskyard.broker.redis_publisher import RedisPublisher
from taskyard.errors import PublishFailed
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["ParkingPublisher", "Publisher", "make_publisher"]


class Publisher(Protocol):
    """Publishes messages byte for byte, with the stamp of the job's current position.

    Every method raises `PublishFailed` unless the broker has confirmed the message.
    """

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
        """Put a message at the end of a queue.

        `queue` is the name in the settings, without a namespace, or the name of an app's own queue.
        `priority` is on the scale of the settings (1 is the least urgent); None is the queue's
        default. An app's own queue ignores it: the message keeps its priority. `strip` names
        headers that the message loses (`expires`, `eta`).
        """
        ...

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
        """Publish a message that waits at the broker until `due_us`, in no worker."""
        ...

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Publish a reply to the service of a job, unchanged, to the broker's `queue`.

        Raises `Unroutable` if the broker has no such queue.
        """
        ...

    def close(self) -> None:
        """Close the connection to the broker."""
        ...


class ParkingPublisher(Publisher, Protocol):
    """A publisher of a worker, which also keeps messages for switches."""

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
        """Publish a message that waits at the broker until the switch is off, in no worker.

        It may come back earlier, and is then parked again. `until_us` is when the switch ends by
        itself, 0 for never.
        """
        ...


class BatchPublisher(ParkingPublisher, Protocol):
    """A publisher that also publishes many at once, and that a forked child may drop."""

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all messages, in their order.

        Returns an error for each message that the broker has not confirmed.
        """
        ...

    def disown(self) -> None:
        """Drop the parent's connection in the child of a fork, without a message to the broker."""
        ...


def make_publisher(settings: Settings, now_us: Callable[[], int] | None = None) -> BatchPublisher:
    """Return the publisher for the broker in the settings; it connects later.

    Due times use the records' clock, `now_us`. RabbitMQ gets a duration; with the machine's own
    clock, which may be an hour slow, RabbitMQ would hold the message an hour too long.
    """
    return AmqpPublisher(settings, now_us) if is_amqp(settings) else RedisPublisher(settings)
