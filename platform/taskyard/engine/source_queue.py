"""Find the queue that a message was taken from, independent of what the message says.

A client writes the route into a Redis message, and chooses exchange and key with RabbitMQ. The
queue of a retry, and the queue that an operator sees, must not depend on the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kombu.transport import virtual

__all__ = ["HOLDER", "QUEUE", "note_queues", "queue_by_tag"]

# On a message and on the request in the child: the queue it was taken from.
QUEUE: Final = "taskyard_queue"
# On the request in the child: the name of its delivery.
HOLDER: Final = "taskyard_holder"
_NOTING: Final = "_taskyard_notes_queues"


def note_queues(channel: Any) -> None:
    """Mark each message that `channel` delivers from now on with its queue's name, as `QUEUE`.

    That works only if kombu itself passes messages to consumers (Redis and others). On RabbitMQ
    the consumer tag names the queue.
    """
    if not isinstance(channel, virtual.Channel) or hasattr(channel, _NOTING):
        return
    plain = channel.basic_consume

    def basic_consume(
        queue: str, no_ack: bool, callback: Callable[[Any], Any], **options: Any
    ) -> Any:
        def noting(message: Any) -> Any:
            setattr(message, QUEUE, queue)
            return callback(message)

        return plain(queue=queue, no_ack=no_ack, callback=noting, **options)

    channel.basic_consume = basic_consume
    setattr(channel, _NOTING, True)


def queue_by_tag(message: Any, consumer: Any) -> str | None:
    """Return the queue whose consumer RabbitMQ names on the delivery; None with other brokers."""
    if isinstance(consumer.channel, virtual.Channel):
        return None
    tag, tags = (message.delivery_info or {}).get("consumer_tag"), consumer._active_tags
    return next((str(name) for name in tags if tag is not None and tags[name] == tag), None)
