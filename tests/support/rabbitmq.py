"""What lies in RabbitMQ's queues."""

from __future__ import annotations

from collections.abc import Callable

from support.waiting import eventually
from taskyard.broker import connection
from taskyard.deadletters import mirror_queue
from taskyard.settings import Settings
from taskyard.wire.letters import Letter

__all__ = ["letters_of"]


def letters_of(settings: Settings, count: int, why: Callable[[], str] = str) -> list[Letter]:
    """The first `count` letters that wait for the mirror, once they are there; they stay."""
    with connection(settings) as broker:
        queue = mirror_queue(settings)(broker.default_channel)
        queue.declare()
        found: list[Letter] = []

        def taken() -> bool:
            message = queue.get()
            if message is not None:
                body = message.body
                found.append(Letter.parse(body.encode() if isinstance(body, str) else body))
            return len(found) >= count

        eventually(taken, f"{count} letters", why=why)
        return found
