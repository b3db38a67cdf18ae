"""Log at a worker's start how RabbitMQ is used: the choices, and the queues that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskyard.broker.delay_exchanges import delay_prefix, delay_type
from taskyard.broker.rabbit_queue_losses import losses
from taskyard.queues import RabbitQueue, choose
from taskyard.settings import Settings
from taskyard.wire.redacted_logs import logger

__all__ = ["describe", "settle_queues"]

log = logger(__name__)


def settle_queues(settings: Settings, app: Any, connection: Any) -> None:
    """Declare the RabbitMQ queues that this worker consumes, or accept existing ones.

    Differences of existing queues are logged. Call it before Celery sets the prefetch, because
    a quorum queue refuses a global one. For another broker, or with queues of an app's own, it
    does nothing.
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
                "queue %s already exists with other arguments and is used as it is. What this "
                "costs: %s. `taskyard check` prints a rabbitmqctl command that sets a policy "
                "against it",
                queue.name,
                "; ".join(lost),
                extra={"action": "queue_differs", "queue": queue.name},
            )


def describe(settings: Settings, properties: Mapping[str, Any]) -> str:
    """Describe the queue type that is chosen for this server and why, also for delayed messages."""
    choice = choose(properties, settings.rabbitmq_queue_type)
    kind = delay_type(properties)
    return (
        f"{choice}. Delayed messages go through our own exchanges "
        f"{delay_prefix(settings, kind)}_celery_delayed_*, {kind}: Celery's native delay "
        "exchanges reach no queue of the default exchange, and all namespaces would share them"
    )
