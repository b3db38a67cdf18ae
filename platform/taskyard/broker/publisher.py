"""What every broker's publisher can do, and which one the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from taskyard.broker.amqp_publisher import AmqpPublisher
from taskyard.broker.connection import is_amqp
from taskyard.broker.outgoing import Outgoing
from taskyard.broker.redis_publisher import RedisPublisher
from taskyard.errors import PublishFailed
from taskyard.settings import Settings
from taskyard.wire.headers import Stamp
from taskyard.wire.letters import RawMessage

__all__ = ["Publisher", "make_publisher"]


class Publisher(Protocol):
    """Publishes messages byte-exact, with the stamp of where the job stands.

    Every method raises `PublishFailed` unless the broker has confirmed.
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
        """Put a message at the end of `queue` (configured name); `priority` is the caller's."""
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
        """Put a message where it waits until `due_us`, in no worker."""
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...


class BatchPublisher(Publisher, Protocol):
    """One that also publishes many at once, and that a fork may pass on."""

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all, in their order; an error for each that the broker has not confirmed."""
        ...

    def disown(self) -> None:
        """Drop what the parent of a fork uses, without a message to the broker."""
        ...


def make_publisher(settings: Settings, now_us: Callable[[], int] | None = None) -> BatchPublisher:
    """The publisher of the broker in the settings; nothing is connected yet.

    Due times are by the records' clock, `now_us`. RabbitMQ gets the time to wait, and by a
    machine's own clock an hour behind it would wait an hour too long.
    """
    return AmqpPublisher(settings, now_us) if is_amqp(settings) else RedisPublisher(settings)
