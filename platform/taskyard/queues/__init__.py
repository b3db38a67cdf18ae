"""Queues and priorities: the caller's view and the broker's."""

from taskyard.queues.priorities import (
    URGENCY_STEPS,
    broker_priority,
    caller_priority,
    rabbit_priority,
)
from taskyard.queues.topology import kombu_queues, route

__all__ = [
    "URGENCY_STEPS",
    "broker_priority",
    "caller_priority",
    "kombu_queues",
    "rabbit_priority",
    "route",
]
