"""A protected task that expires while it waits at RabbitMQ: a letter, as at every other broker.

Celery tells RabbitMQ the time too, as a property of the message, and RabbitMQ drops it from its
queue by that. No worker sees it then: no outcome, and no letter unless the queue's own arguments
lead to the dead-letter exchange. The header that says the same to workers stays.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from taskyard.install.fanout import fanout_target
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode

__all__ = ["keep_expired"]


def keep_expired(app: Any, yard: InstalledContext) -> None:
    """Have workers, not the broker, end what has expired; watched tasks stay as they are."""

    def keep(
        sender: str = "",
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        told = (headers or {}).get("expires") is not None
        protected = yard.mode(sender) is Mode.PROTECT and not fanout_target(app, options)
        if told and properties and protected:
            properties.pop("expiration", None)

    signals.before_task_publish.connect(keep, weak=False, dispatch_uid=f"taskyard-expiry-{id(app)}")
