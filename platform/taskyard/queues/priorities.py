"""Priorities: for callers a higher number is more urgent, with every broker.

Redis has four lists for each queue, and kombu serves the lowest step first. A queue's most urgent
priority uses the first list, the next one the second, and so on; all lower ones share the last.
"""

from __future__ import annotations

from typing import Final

from taskyard.settings import QueueSettings

__all__ = ["URGENCY_STEPS", "broker_priority", "rabbit_priority"]

URGENCY_STEPS: Final = (0, 3, 6, 9)
RABBIT_LEVELS: Final = (5, 3, 2, 1)


def broker_priority(queue: QueueSettings, priority: int) -> int:
    """Return the Redis step of a caller's priority (1 to `queue.priorities`)."""
    return URGENCY_STEPS[min(queue.priorities - priority, len(URGENCY_STEPS) - 1)]


def rabbit_priority(queue: QueueSettings, priority: int) -> int:
    """Return RabbitMQ's priority: 5, 3, 2 for the three most urgent ones, and 1 for the rest.

    A classic queue with four priorities treats the 5 as 4; a quorum queue before 4.3, which
    distinguishes only two, treats values over 4 as urgent. So no publisher needs to know the
    queue's type.
    """
    return RABBIT_LEVELS[min(queue.priorities - priority, len(RABBIT_LEVELS) - 1)]
