"""The real mirror in a thread, and what it has stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from sqlalchemy import Connection, Engine, select

from taskyard.database import engine
from taskyard.database.tables import LETTERS
from taskyard.mirror import Mirror, letter_source
from taskyard.settings import Settings

__all__ = ["mirroring", "stored_letters"]


@contextmanager
def mirroring(settings: Settings, database_url: str) -> Iterator[Engine]:
    """Run a mirror of `settings` into the database; yields an engine to read it with."""
    database = engine(database_url)
    client = redis.Redis.from_url(settings.need_redis_url())
    letters = letter_source(settings, client)
    mirror = Mirror(settings, engine=database, client=client, letters=letters)
    stop = threading.Event()
    thread = threading.Thread(target=mirror.run, args=(stop,), name="mirror-under-test")
    thread.start()
    try:
        yield database
    finally:
        stop.set()
        thread.join(30)
        letters.close()
        client.close()
        database.dispose()


def stored_letters(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """The rows of one job's letters, the newest last."""
    query = select(LETTERS).where(LETTERS.c.original_request_id == job_id)
    query = query.order_by(LETTERS.c.epoch, LETTERS.c.generation)
    return [dict(row) for row in connection.execute(query).mappings()]
