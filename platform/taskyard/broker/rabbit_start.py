"""What a worker says of RabbitMQ at its start: what was chosen, and the queues that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskyard.broker.delay_exchanges import delay_prefix, delay_type
from taskyard.broker.rabbit_losses import losses
from taskyard.queues import RabbitQueue, choose
from taskyard.settings import Settings
from taskyard.wire.logs import logger

__all__ = ["describe", "settle_queues"]

log = logger(__name__)


def settle_queues(settings: Settings, app: Any, connection: Any) -> None:
    """Declare the queues that this worker consumes, or take them as they are, and say so.

    To be called before Celery sets the prefetch, since a quorum queue refuses a global one. On
    another broker, or with queues of an app's own, it does nothing.
    """
    queues = [q for q in app.amqp.queues.consume_from.values() if isinstance(q, RabbitQueue)]
    if not queues:
        return
    server = connection.connection
    properties = server.server_properties
    log.info("%s", describe(settings, properties), extra={"action": "broker_topology"})
    for queue in queues:
        lost = losses(queue, queue.settle(server), properties)
        if lost:
            log.warning(
                "queue %s exists and is used as it is, though %s. What a policy can mend is "
                "printed by `taskyard check`, as rabbitmqctl set_policy",
                queue.name,
                "; ".join(lost),
                extra={"action": "queue_differs", "queue": queue.name},
            )


def describe(settings: Settings, properties: Mapping[str, Any]) -> str:
    """What is chosen for this server and why, for messages that wait too."""
    choice = choose(properties, settings.rabbitmq_queue_type)
    kind = delay_type(properties)
    return (
        f"{choice}. What waits goes through our own exchanges {delay_prefix(settings, kind)}"
        f"_celery_delayed_*, {kind}: Celery's native ones reach no queue of the default exchange, "
        "and all namespaces would share them"
    )
