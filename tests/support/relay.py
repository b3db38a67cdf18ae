"""The real relay in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from taskyard.broker import make_publisher
from taskyard.gate import Gate
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["relaying"]


@contextmanager
def relaying(settings: Settings, engine: Engine) -> Iterator[None]:
    """Carry out operators' intents while the context is open."""
    client = connect(settings.need_redis_url())
    publisher, gate = make_publisher(settings), Gate(settings.namespace, client)
    relay = Relay(settings, engine, Records(client, settings), publisher, gate)
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
