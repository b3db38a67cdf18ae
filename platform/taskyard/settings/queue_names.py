"""The name of a queue at the broker.

Alone because this rule is looked for by its name.
"""

from __future__ import annotations

__all__ = ["queue_name_at_broker"]


def queue_name_at_broker(namespace: str, queue: str) -> str:
    """Return a configured queue's name: bare in the default namespace, else prefixed."""
    return queue if namespace == "taskyard" else f"{namespace}.{queue}"
