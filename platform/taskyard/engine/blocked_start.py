"""A worker that starts while RabbitMQ blocks publishers does not wait for the end of that.

A starting worker asks the others for their state (mingle). Where the app confirms what it
publishes, it would wait for that confirmation without a time limit: silent, and off the queues
whose messages may be what fills the broker. Remote control is for people, like task events, and
goes unconfirmed.
"""

from __future__ import annotations

from typing import Any

from kombu import pools

__all__ = ["BlockedStart"]


class BlockedStart:
    """For Celery's consumer: its process' remote control waits for no confirmation."""

    app: Any

    def connect(self) -> Any:
        """Celery's connection; what is asked and answered goes over another one."""
        connection = super().connect()  # type: ignore[misc]
        options = connection.transport_options or {}
        if connection.transport.driver_type == "amqp" and options.get("confirm_publish"):
            # Children forget it when they are forked.
            self.app.control.mailbox.producer_pool = self._unconfirmed()
        return connection

    def _unconfirmed(self) -> Any:
        connection = self.app.connection_for_write()
        options = {**(connection.transport_options or {}), "confirm_publish": False}
        connection.transport_options = options
        return pools.producers[connection]
