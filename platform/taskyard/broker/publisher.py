"""What every broker's publisher can do, and which one the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from taskyard.broker.amqp_publisher import AmqpPublisher
from taskyard.broker.connection import is_amqp
from taskyard.broker.redis_publisher import RedisPublisher
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


def make_publisher(settings: Settings, now_us: Callable[[], int] | None = None) -> Publisher:
    """The publisher of the broker in the settings; nothing is connected yet.

    Due times are by the records' clock, `now_us`. RabbitMQ is told how long to wait, and by a
    machine's own clock an hour behind it would wait an hour too long.
    """
    return AmqpPublisher(settings, now_us) if is_amqp(settings) else RedisPublisher(settings)
