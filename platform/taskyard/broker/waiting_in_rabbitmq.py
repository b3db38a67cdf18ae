"""The messages that wait in one queue at RabbitMQ.

RabbitMQ cannot be searched. So messages are taken and not acknowledged. Removing one acknowledges
it; the others return to where they were when the channel is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu import Connection
from kombu.exceptions import OperationalError

from taskyard.broker.compressed_bodies import body_as_it_came, keep_packed
from taskyard.broker.waiting_messages import WaitingMessage
from taskyard.errors import Refused

__all__ = ["MOST_HELD", "RabbitQueueMessages"]

MOST_HELD: Final = 10_000
"""How many messages that stay are held at once, since all of them are in this process' memory."""

# A quorum queue drops a message at its limit, 20 by default, and a dying worker counts too.
_RETURNS: Final = 10


class RabbitQueueMessages:
    """Implements `QueueMessages` for the queue `name` of RabbitMQ; `connect` opens a connection."""

    has_delayed = False

    def __init__(self, connect: Callable[[], Connection], name: str) -> None:
        self._connection, self._name = connect(), name
        self._channel: Any = None
        self._taken = 0
        self._removed = 0

    def count(self) -> int:
        """Return how many messages are ready in the queue; raises `Refused` if there is none."""
        with self._connection.channel() as channel:
            try:
                declared = channel.queue_declare(queue=self._name, passive=True)
            except NotFound:
                raise Refused(
                    f"RabbitMQ has no queue {self._name!r}. See: taskyard queues list"
                ) from None
            return int(declared.message_count)

    def count_delayed(self) -> int:
        """Return 0: the delay exchanges cannot be searched."""
        return 0

    def next_messages(self, limit: int) -> Sequence[WaitingMessage]:
        """Take up to `limit` messages, those served next first."""
        if self._taken - self._removed >= MOST_HELD:
            return []
        found: list[WaitingMessage] = []
        channel = self._open()
        while len(found) < limit:
            message = channel.basic_get(self._name)
            if message is None:
                break
            found.append(_read(channel.message_to_python(message)))
        self._taken += len(found)
        return found

    def _open(self) -> Any:
        if self._channel is None:
            self._channel = self._connection.channel()
            # Messages that stay are not unpacked, nor those that go.
            keep_packed(self._channel)
        return self._channel

    def next_delayed(self) -> Sequence[WaitingMessage] | None:
        """Return None: the delay exchanges cannot be searched."""
        return None

    def remove(self, messages: Sequence[WaitingMessage]) -> list[bool]:
        """Acknowledge messages; no worker can have taken them meanwhile."""
        for message in messages:
            message.handle.ack()
        self._removed += len(messages)
        return [True] * len(messages)

    def keep(self, messages: Sequence[WaitingMessage]) -> None:
        """Hold messages until `close`.

        Raises `Refused` for one that was returned so often that RabbitMQ may drop it.
        """
        for message in messages:
            returns = message.headers.get("x-delivery-count")
            if isinstance(returns, int) and returns >= _RETURNS:
                raise Refused(
                    f"a message of queue {self._name!r} that stays there was returned {returns} "
                    "times already, and RabbitMQ may drop it at the queue's delivery limit. Start "
                    "a worker for this queue: it publishes such messages anew"
                )

    def errors(self) -> tuple[type[Exception], ...]:
        """Return kombu's and py-amqp's classes."""
        own = (*self._connection.connection_errors, *self._connection.channel_errors)
        return (OperationalError, OSError, *own)

    def let_go(self) -> None:
        """Close the channel: RabbitMQ puts what was taken and not removed where it was."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def close(self) -> None:
        """Close the connection, with the same effect."""
        self._connection.release()


def _read(message: Any) -> WaitingMessage:
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    return WaitingMessage(headers, dict(message.properties), body_as_it_came(message), message)
