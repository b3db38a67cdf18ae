"""How many letters RabbitMQ holds for the mirror."""

from __future__ import annotations

from amqp.exceptions import NotFound
from kombu.exceptions import OperationalError

from taskyard.broker import connection
from taskyard.deadletters.topology import mirror_queue
from taskyard.queues import inquire
from taskyard.settings import Settings

__all__ = ["count_waiting"]


def count_waiting(settings: Settings) -> int | None:
    """Letters that wait in the mirror's queue, None if RabbitMQ does not say.

    What a mirror has taken and not yet acknowledged is not among them.
    """
    with connection(settings) as opened:
        lost = (OperationalError, OSError, *opened.connection_errors, *opened.channel_errors)
        try:
            return int(inquire(opened, mirror_queue(settings).name).message_count)
        except NotFound:
            return 0
        except lost:
            return None
