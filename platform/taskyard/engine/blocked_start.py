"""The consumer's own connection: a worker that RabbitMQ keeps from starting says why.

Celery publishes on it in one place: a starting worker asks the others for their state (mingle).
While RabbitMQ lacks memory or disk it reads nothing more from a connection that has published, so
that the worker waits there, without a time limit.
"""

from __future__ import annotations

from typing import Any

from taskyard.wire.logs import logger

__all__ = ["BlockedStart"]

log = logger(__name__)


class BlockedStart:
    """For Celery's consumer: the log tells that the broker's alarm keeps it from starting."""

    app: Any
    ensure_connected: Any

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Celery's, on which RabbitMQ's word that it blocks is heard."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        if connection.transport.driver_type == "amqp":
            connection.transport_options = {
                **(connection.transport_options or {}),
                "on_blocked": _tell_blocked,
                "on_unblocked": _tell_unblocked,
            }
        return self.ensure_connected(connection)


def _tell_blocked(_: str) -> None:
    log.warning(
        "this worker waits to start: RabbitMQ lacks memory or disk and reads nothing more from it, "
        "since it has asked the other workers for their state; it starts when the alarm ends. Free "
        "what `rabbitmqctl status` names under Alarms, or start it with --without-mingle: then it "
        "works off its queues meanwhile",
        extra={"action": "start_blocked"},
    )


def _tell_unblocked() -> None:
    log.warning(
        "RabbitMQ reads from this worker again, it goes on",
        extra={"action": "start_unblocked"},
    )
