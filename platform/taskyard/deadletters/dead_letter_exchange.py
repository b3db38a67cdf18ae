"""The dead-letter exchange and the queue of its mirror."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.broker import is_amqp
from taskyard.queues import QueueOptions, RabbitQueue
from taskyard.settings import Settings

__all__ = ["exchange", "mirror_queue", "review_queue"]


def exchange(settings: Settings) -> Exchange:
    """`<namespace>.dead-letter`, a durable topic exchange; bind your own queues to it freely."""
    return Exchange(f"{settings.namespace}.dead-letter", type="topic", durable=True)


def mirror_queue(settings: Settings) -> Queue:
    """The durable queue that the mirror reads; it gets every dead letter."""
    name = f"{settings.namespace}.dead-letter.mirror"
    if is_amqp(settings):
        options = QueueOptions(settings.rabbitmq_queue_type)
        return RabbitQueue.of_options(name, options, exchange(settings), "#")
    return Queue(name, exchange(settings), routing_key="#", durable=True)


def review_queue(settings: Settings, name: str, limit: int) -> RabbitQueue:
    """Return the review queue of an escalation (RabbitMQ).

    When the queue is full, RabbitMQ drops the oldest dead letter.
    """
    bounds = {"x-max-length": limit, "x-overflow": "drop-head"}
    full = settings.broker_name(name)
    options = QueueOptions(settings.rabbitmq_queue_type, bounds=bounds)
    return RabbitQueue.of_options(full, options, Exchange(""), full)
