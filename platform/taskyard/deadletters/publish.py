"""Publishing a letter: confirmed, or an error; never a silent loss."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property, partial
from time import monotonic
from typing import Final

import redis
from kombu import Connection
from redis.exceptions import RedisError

from taskyard.broker import connection, is_amqp
from taskyard.broker.own_connection import OwnConnection
from taskyard.deadletters.amqp_post import AmqpPost
from taskyard.deadletters.kept import KeptLetters
from taskyard.deadletters.post import Post
from taskyard.deadletters.prefixes import LetterPrefixes
from taskyard.deadletters.redis_post import RedisPost
from taskyard.errors import PublishFailed
from taskyard.settings import Settings
from taskyard.store import connect as connect_redis
from taskyard.wire.letters import Letter
from taskyard.wire.logs import logger

__all__ = ["LetterBox"]

log = logger(__name__)

_NOTE_EVERY_S: Final = 60.0


class LetterBox:
    """The way of letters to the dead-letter exchange; threads may share it.

    `connect` makes the connection to the broker, by default to that of the settings. `keyprefix` is
    that under which letters lie by it at a Redis broker, where it is not our own.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], Connection] | None = None,
        keyprefix: str | None = None,
    ) -> None:
        self._settings = settings
        amqp = is_amqp(settings)
        self._post: Post = AmqpPost(settings) if amqp else RedisPost(settings)
        self._prefix = None if amqp else keyprefix
        self._noted_at = float("-inf")
        self._own = OwnConnection(connect or partial(connection, settings), self._post.prepare)
        self._lock = threading.Lock()

    @cached_property
    def _records(self) -> redis.Redis:
        return connect_redis(self._settings.need_redis_url())

    @cached_property
    def _kept(self) -> KeptLetters:
        return KeptLetters(self._records, self._settings)

    def post(self, letter: Letter) -> None:
        """Publish `letter`; raises `PublishFailed` unless at least one bound queue took it.

        A copy is kept afterwards; without one nothing is lost now, so that this raises nothing.
        """
        with self._lock:
            try:
                self._note_prefix()
                self._post.send(self._own.producer(), letter)
            except self._errors() as error:
                self._own.abandon()
                raise PublishFailed(
                    f"letter {letter.letter_id} was not published: {error}"
                ) from error
        # One line a death, whatever its category: Celery's own say INFO, or nothing.
        log.warning(
            "job %s (%s) is dead letter %s, %s: %.500s",
            letter.job_id,
            letter.job_type,
            letter.letter_id,
            letter.category,
            letter.error_message,
            extra={"action": "dead_lettered", "job_id": letter.job_id},
        )
        self._kept.keep(letter)

    def _errors(self) -> tuple[type[BaseException], ...]:
        return (RedisError, *self._own.errors())

    def _note_prefix(self) -> None:
        """Before the letter: the mirror would not look for it where it lies.

        Again after a while, for records that were flushed.
        """
        now = monotonic()
        if self._prefix is not None and now - self._noted_at >= _NOTE_EVERY_S:
            LetterPrefixes(self._records, self._settings.namespace).note(self._prefix)
            self._noted_at = now

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            self._own.close()
