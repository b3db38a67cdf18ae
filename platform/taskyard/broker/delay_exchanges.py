"""Celery's native delay exchanges on RabbitMQ, in our namespace, bound to our queues."""

from __future__ import annotations

from typing import Any

from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from taskyard.queues import RabbitChoice
from taskyard.settings import Settings

__all__ = ["bind_delay", "declare_delay", "delay_prefix"]


def delay_prefix(settings: Settings, choice: RabbitChoice) -> str:
    """What the levels' names begin with.

    Levels of quorum queues have names of their own: where the classic ones exist, what waits in
    them still finds its way, and no declaration is refused.
    """
    kind = "" if choice.queue_type == "classic" else ".quorum"
    return f"{settings.namespace}{kind}"


def declare_delay(channel: Any, settings: Settings, choice: RabbitChoice) -> None:
    """Declare 28 levels (2^0 to 2^27 s) and bind every work queue behind them."""
    prefix = delay_prefix(settings, choice)
    client = channel.connection.client
    declare_native_delayed_delivery_exchanges_and_queues(client, choice.queue_type, prefix)
    for queue in settings.queues:
        bind_delay(channel, prefix, settings.broker_name(queue))


def bind_delay(channel: Any, prefix: str, name: str) -> None:
    """Lead what has waited for the queue `name` (the broker's) into it."""
    channel.queue_bind(
        queue=name,
        exchange=f"{prefix}_{CELERY_DELAYED_DELIVERY_EXCHANGE}",
        routing_key=f"#.{name}",
    )
