"""The dead-letter exchange and the queue of its mirror."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.settings import Settings

__all__ = ["exchange", "mirror_queue", "review_queue"]


def exchange(settings: Settings) -> Exchange:
    """`<namespace>.dead-letter`, a durable topic exchange; bind your own queues to it freely."""
    return Exchange(f"{settings.namespace}.dead-letter", type="topic", durable=True)


def mirror_queue(settings: Settings) -> Queue:
    """The durable queue that the mirror reads; it takes every letter."""
    name = f"{settings.namespace}.dead-letter.mirror"
    return Queue(name, exchange(settings), routing_key="#", durable=True)


def review_queue(settings: Settings, name: str, limit: int) -> Queue:
    """The bounded queue of an escalation on RabbitMQ; the oldest letter makes room."""
    bounds = {"x-max-length": limit, "x-overflow": "drop-head"}
    full = settings.broker_name(name)
    return Queue(full, Exchange(""), routing_key=full, durable=True, queue_arguments=bounds)
