"""Celery's native delay exchanges on RabbitMQ, in our namespace, bound to our queues."""

from __future__ import annotations

from typing import Any

from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from taskyard.settings import Settings

__all__ = ["bind_delay", "declare_delay"]


def declare_delay(channel: Any, settings: Settings) -> None:
    """Declare 28 levels (2^0 to 2^27 s) and bind every work queue behind them."""
    prefix = settings.namespace
    client = channel.connection.client
    declare_native_delayed_delivery_exchanges_and_queues(client, "classic", prefix)
    for queue in settings.queues:
        bind_delay(channel, settings, settings.broker_name(queue))


def bind_delay(channel: Any, settings: Settings, name: str) -> None:
    """Lead what has waited for the queue `name` (the broker's) into it."""
    channel.queue_bind(
        queue=name,
        exchange=f"{settings.namespace}_{CELERY_DELAYED_DELIVERY_EXCHANGE}",
        routing_key=f"#.{name}",
    )
