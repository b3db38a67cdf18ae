"""Convert priorities: for callers a higher number is more urgent, with every broker.

Redis has four lists for each queue, and kombu serves the list with the lowest step first. The most
urgent priority of a queue uses the first list, the next priority the second list, and so on. All
lower priorities share the last list.
"""

from __future__ import annotations

from typing import Final

from taskyard.settings import QueueSettings

__all__ = ["URGENCY_STEPS", "broker_priority", "fitting_priority", "rabbit_priority"]

URGENCY_STEPS: Final = (0, 3, 6, 9)
RABBIT_LEVELS: Final = (5, 3, 2, 1)


def fitting_priority(priority: int | None, queue: QueueSettings | None) -> int | None:
    """Return a caller's priority within the range of another queue, which may be smaller.

    A queue of an existing app, which no setting names, is None and has no range of ours.
    """
    if priority is None or queue is None:
        return priority
    return max(1, min(priority, queue.priorities))


def broker_priority(queue: QueueSettings, priority: int) -> int:
    """Return the priority step at Redis for a caller's priority (1 to `queue.priorities`)."""
    return URGENCY_STEPS[min(queue.priorities - priority, len(URGENCY_STEPS) - 1)]


def rabbit_priority(queue: QueueSettings, priority: int) -> int:
    """Return the priority at RabbitMQ: 5, 3, 2 for the three most urgent ones, 1 for the others.

    A classic queue with four priorities treats 5 as 4. A quorum queue before RabbitMQ 4.3 knows
    only two priorities and treats values over 4 as urgent. So these numbers suit both queue
    types, and a publisher does not need to know the type.
    """
    return RABBIT_LEVELS[min(queue.priorities - priority, len(RABBIT_LEVELS) - 1)]
