"""Queues that the settings do not know: those of an existing Celery app.

They keep their own name, and the priority that a message came with keeps the broker's own meaning.
"""

from __future__ import annotations

from taskyard.settings import Settings
from taskyard.wire.letters import RawMessage

__all__ = ["own_priority", "queue_name"]


def queue_name(settings: Settings, queue: str) -> str:
    """The name at the broker."""
    return settings.broker_name(queue) if queue in settings.queues else queue


def own_priority(message: RawMessage) -> int:
    """The broker's priority that a message came with, 0 where it says none."""
    value = message.properties.get("priority")
    return value if isinstance(value, int) and value > 0 else 0
