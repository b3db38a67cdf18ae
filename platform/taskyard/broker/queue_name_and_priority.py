"""Name the queues of an existing Celery app, which the settings do not know.

Such queues keep their own name, and a message's priority keeps the broker's own meaning.
"""

from __future__ import annotations

from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["own_priority", "queue_name"]


def queue_name(settings: Settings, queue: str) -> str:
    """Return the queue's name at the broker."""
    return settings.broker_name(queue) if queue in settings.queues else queue


def own_priority(message: RawMessage) -> int:
    """Return the broker's priority of the message, 0 if it has none."""
    value = message.properties.get("priority")
    return value if isinstance(value, int) and value > 0 else 0
