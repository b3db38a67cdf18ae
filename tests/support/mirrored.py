"""A mirror of one test's namespace, run in this process, and what it should have mirrored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from sqlalchemy import Engine, func, select

from support.letters import make_letter
from taskyard.broker import connection as broker_connection
from taskyard.database.tables import EVENTS, LETTERS
from taskyard.deadletters import LetterBox, mirror_queue
from taskyard.mirror import Mirror
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.wire import Letter

__all__ = ["MirrorHarness"]


class MirrorHarness:
    """A mirror of one test's namespace, and what it should have mirrored."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.source = KombuLetters(
            broker_connection(settings), mirror_queue(settings), prefetch=500
        )
        self.box = LetterBox(settings)
        self.mirror = Mirror(settings, engine=database, client=self.client, letters=self.source)

    def post(self) -> Letter:
        letter = make_letter()
        self.box.post(letter)
        return letter

    def admit(self, job: str) -> None:
        self.records.admit(job, job_type="t", queue="plan", priority=3, unique_for_s=0)

    def has(self, letter: Letter) -> bool:
        query = select(func.count()).where(LETTERS.c.original_request_id == letter.job_id)
        with self.database.connect() as connection:
            return connection.scalar(query) == 1

    def knows(self, job: str) -> bool:
        query = select(func.count()).where(EVENTS.c.job_id == job)
        with self.database.connect() as connection:
            return connection.scalar(query) == 1

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.mirror.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=30)
        assert not thread.is_alive()

    def close(self) -> None:
        self.source.close()
        self.box.close()
        self.client.close()
