"""What lies in RabbitMQ's queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from amqp.exceptions import NotFound

from servers import RabbitMQ
from support.waiting import eventually
from taskyard.broker import connection
from taskyard.deadletters import mirror_queue
from taskyard.queues import RabbitChoice, choose
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter

__all__ = ["chosen", "count_messages", "letters_of", "memory_alarm", "take_letters"]


@contextmanager
def memory_alarm(rabbitmq: RabbitMQ) -> Iterator[None]:
    """RabbitMQ takes nothing from publishers meanwhile."""
    rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.9")


def chosen(settings: Settings) -> RabbitChoice:
    """What is chosen for the server that the tests talk to, of whatever version it is."""
    with connection(settings) as broker:
        properties = broker.default_channel.connection.server_properties
    return choose(properties, settings.rabbitmq_queue_type)


def take_letters(settings: Settings) -> list[Letter]:
    """The letters that wait for the mirror; after that they do not."""
    with connection(settings) as broker:
        queue = mirror_queue(settings)(broker.default_channel)
        queue.declare()
        bodies = [message.body for message in iter(lambda: queue.get(no_ack=True), None)]
        return [Letter.parse(body.encode() if isinstance(body, str) else body) for body in bodies]


def letters_of(settings: Settings, count: int, why: Callable[[], str] = str) -> list[Letter]:
    """The first `count` letters, once they are there."""
    found: list[Letter] = []

    def enough() -> bool:
        found.extend(take_letters(settings))
        return len(found) >= count

    eventually(enough, f"{count} letters", why=why)
    return found


def count_messages(settings: Settings, names: Iterable[str]) -> int:
    """How many messages lie in these queues, those that a worker holds left out."""
    total = 0
    with connection(settings) as broker:
        for name in names:
            try:
                with broker.channel() as channel:
                    total += channel.queue_declare(queue=name, passive=True).message_count
            except NotFound:
                continue
    return total
