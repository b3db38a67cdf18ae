"""What a worker logs about RabbitMQ at its start: its choices, and the queues that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskyard.broker.delay_exchanges import delay_prefix, delay_type
from taskyard.broker.rabbit_queue_losses import losses
from taskyard.queues import RabbitQueue, choose
from taskyard.settings import Settings
from taskyard.wire.logs import logger

__all__ = ["describe", "settle_queues"]

log = logger(__name__)


def settle_queues(settings: Settings, app: Any, connection: Any) -> None:
    """Declare the queues that this worker consumes, or accept existing ones, and log it.

    Call it before Celery sets the prefetch, since a quorum queue refuses a global one. For another
    broker, or with queues of an app's own, it does nothing.
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
                "queue %s exists and is used as it is, with this loss: %s. `taskyard check` "
                "prints the rabbitmqctl command for a policy that helps",
                queue.name,
                "; ".join(lost),
                extra={"action": "queue_differs", "queue": queue.name},
            )


def describe(settings: Settings, properties: Mapping[str, Any]) -> str:
    """Describe what is chosen for this server and why, also for delayed messages."""
    choice = choose(properties, settings.rabbitmq_queue_type)
    kind = delay_type(properties)
    return (
        f"{choice}. Delayed messages go through our own exchanges {delay_prefix(settings, kind)}"
        f"_celery_delayed_*, {kind}: Celery's native ones reach no queue of the default exchange, "
        "and all namespaces would share them"
    )
