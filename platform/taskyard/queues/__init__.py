"""Queues and priorities, as callers name them and as each broker has them."""

from taskyard.queues.priorities import (
    URGENCY_STEPS,
    broker_priority,
    fitting_priority,
    rabbit_priority,
)
from taskyard.queues.rabbit_existing_queues import Declared, inquire, look_at
from taskyard.queues.rabbit_queue import QueueOptions, RabbitQueue
from taskyard.queues.rabbit_queue_type import (
    QueueType,
    RabbitChoice,
    choose,
    product_of,
    quorum_priorities,
    version_of,
)
from taskyard.queues.work_queues import kombu_queues, rabbit_queues, route

__all__ = [
    "URGENCY_STEPS",
    "Declared",
    "QueueOptions",
    "QueueType",
    "RabbitChoice",
    "RabbitQueue",
    "broker_priority",
    "choose",
    "fitting_priority",
    "inquire",
    "kombu_queues",
    "look_at",
    "product_of",
    "quorum_priorities",
    "rabbit_priority",
    "rabbit_queues",
    "route",
    "version_of",
]
