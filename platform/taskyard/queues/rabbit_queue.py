"""A RabbitMQ queue that Taskyard declares as the server allows, or accepts if it exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kombu import Exchange, Queue

from taskyard.queues.priorities import URGENCY_STEPS
from taskyard.queues.rabbit_existing_queues import Declared, declare_or_accept
from taskyard.queues.rabbit_queue_type import RabbitChoice, choose

__all__ = ["BROKER_DELIVERY_LIMIT", "QueueOptions", "RabbitQueue"]

# Our limit (`delivery_limit`) is counted in the record, which also has the reason. This one only
# ends messages that are redelivered while Redis is unreachable. The server's own default, 20, is
# reached in a short outage.
BROKER_DELIVERY_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """The queue that the settings ask for.

    `dead_letter` is exchange and key for messages that the broker drops.
    """

    asked: str
    dead_letter: tuple[str, str] | None = None
    priorities: bool = False
    bounds: Mapping[str, object] = field(default_factory=dict)

    def arguments(self, choice: RabbitChoice) -> dict[str, object]:
        """Return the arguments of the declaration, if the server allows this choice."""
        found: dict[str, object] = {"x-queue-type": choice.queue_type, **self.bounds}
        if self.dead_letter is not None:
            exchange, key = self.dead_letter
            found |= {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key}
        if choice.queue_type == "classic":
            return found | ({"x-max-priority": len(URGENCY_STEPS)} if self.priorities else {})
        if self.dead_letter is None:
            # A message that RabbitMQ drops here is lost. With -1 it drops none, however often
            # they return.
            return found | ({"x-delivery-limit": -1} if choice.drops_by_default else {})
        # At-least-once dead-lettering needs this overflow: a queue that drops its head cannot wait
        # for it.
        safe = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return found | safe | {"x-delivery-limit": BROKER_DELIVERY_LIMIT}


class RabbitQueue(Queue):  # type: ignore[misc]
    """kombu's durable queue with the arguments that the settings ask for.

    The arguments are known once the queue has been declared.
    """

    attrs = (*Queue.attrs, ("options", None))
    options: QueueOptions

    @classmethod
    def of_options(
        cls, name: str, options: QueueOptions, exchange: Exchange, routing_key: str
    ) -> RabbitQueue:
        """Return a queue that RabbitMQ does not know yet."""
        made: RabbitQueue = cls(
            name, exchange, routing_key=routing_key, durable=True, options=options
        )
        return made

    def settle(self, connection: Any) -> Declared:
        """Declare the queue, or accept an existing one, and remember its arguments.

        `connection` is py-amqp's. Raises py-amqp's channel errors.
        """
        wanted = self.options.arguments(choose(connection.server_properties, self.options.asked))
        declared = declare_or_accept(connection, self.name, wanted)
        # Celery reads the arguments to see whether it is a quorum queue, which allows no global
        # prefetch.
        self.queue_arguments = dict(declared.arguments)
        return declared

    def queue_declare(
        self, nowait: bool = False, passive: bool = False, channel: Any = None
    ) -> Any:
        """Declare the queue as kombu does, but accept an existing one."""
        own = channel or self.channel
        if passive:
            return super().queue_declare(nowait=nowait, passive=True, channel=own)
        return self.settle(own.connection).answer
