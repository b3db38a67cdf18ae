"""The connection of task events: nobody waits for it, and a broker in trouble gets none.

RabbitMQ stops reading from publishers while it lacks memory or disk. Task events are for people:
waiting for their confirmation would stop the consumer, which alone makes room there.
"""

from __future__ import annotations

from typing import Any

from taskyard.wire.logs import logger

__all__ = ["UnconfirmedEvents"]

log = logger(__name__)


class UnconfirmedEvents:
    """For Celery's consumer: events unconfirmed, and none while RabbitMQ blocks publishers."""

    app: Any
    event_dispatcher: Any
    ensure_connected: Any

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """The connection of the event dispatcher; Celery's consumer uses it for nothing else."""
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        if connection.transport.driver_type == "amqp":
            connection.transport_options = {
                **(connection.transport_options or {}),
                "confirm_publish": False,
                "on_blocked": self._on_blocked,
                "on_unblocked": self._on_unblocked,
            }
        return self.ensure_connected(connection)

    def _on_blocked(self, _: str) -> None:
        log.warning(
            "RabbitMQ blocks publishers for want of memory or disk: no task events until it has "
            "some; jobs are served, their retries and letters wait",
            extra={"action": "broker_blocked"},
        )
        if self.event_dispatcher is not None:
            self.event_dispatcher.enabled = False

    def _on_unblocked(self) -> None:
        log.warning("RabbitMQ takes publications again", extra={"action": "broker_unblocked"})
        if self.event_dispatcher is not None:
            self.event_dispatcher.enabled = True
