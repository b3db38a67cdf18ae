"""Priorities: for callers a higher number is more urgent, on every broker.

Redis keeps four lists a queue, of which kombu serves the lowest step first. A queue's most urgent
priority maps to the first list, the next to the second and so on; what is below shares the last.
"""

from __future__ import annotations

from typing import Final

from taskyard.settings import QueueSettings

__all__ = ["URGENCY_STEPS", "broker_priority", "rabbit_priority"]

URGENCY_STEPS: Final = (0, 3, 6, 9)
RABBIT_LEVELS: Final = (5, 3, 2, 1)


def broker_priority(queue: QueueSettings, priority: int) -> int:
    """The Redis step of a caller's priority (1 to `queue.priorities`)."""
    return URGENCY_STEPS[min(queue.priorities - priority, len(URGENCY_STEPS) - 1)]


def rabbit_priority(queue: QueueSettings, priority: int) -> int:
    """RabbitMQ's priority of a caller's: 5, 3, 2 from the most urgent down, and 1 for the rest.

    A classic queue with four priorities takes the 5 for its 4; a quorum queue before 4.3, which
    distinguishes only two, takes what is over 4 for urgent. So no publisher needs to know the
    queue's type.
    """
    return RABBIT_LEVELS[min(queue.priorities - priority, len(RABBIT_LEVELS) - 1)]
