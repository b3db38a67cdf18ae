"""The real relay in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["relaying"]


@contextmanager
def relaying(settings: Settings, engine: Engine) -> Iterator[None]:
    """Carry out operators' intents while the context is open."""
    client = connect(settings.need_redis_url())
    records, gate = Records(client, settings), Gate(settings.namespace, client)
    publisher = AnyQueuePublisher(settings, records)
    relay = Relay(settings, engine, records, publisher, gate, queues=publisher)
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,), name="relay-under-test")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        publisher.close()
        client.close()
