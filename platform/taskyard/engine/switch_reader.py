"""Read the switches once a second, in a thread of a worker's main process."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Final

import redis
from redis.exceptions import RedisError

from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine.known_switches import KnownSwitches
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.switches import RedisSwitches
from taskyard.wire.redacted_logs import logger

__all__ = ["INTERVAL_S", "SwitchReader"]

log = logger(__name__)

INTERVAL_S: Final = 1.0


class SwitchReader(threading.Thread):
    """Reads the switches into `known`; the main loop never waits for Redis because of that."""

    def __init__(self, settings: Settings, known: KnownSwitches) -> None:
        super().__init__(name="taskyard-switches", daemon=True)
        self._settings, self._known = settings, known
        self._ending = self._failing = False

    def read_now(self) -> None:
        """Read the switches in the calling thread, before the worker takes its first message."""
        with closing(self._connect()) as client:
            self._read(client)

    def run(self) -> None:
        """Read the switches until the consumer ends."""
        with closing(self._connect()) as client:
            while not self._ending:
                # After an answer of `begin` the next read is due at once.
                self._known.answered.wait(INTERVAL_S)
                self._known.answered.clear()
                if not self._ending:
                    self._read(client)

    def end(self) -> None:
        """Tell the thread to end, and do not wait for it."""
        self._ending = True
        self._known.answered.set()

    def _connect(self) -> redis.Redis:
        return connect(self._settings.need_redis_url(), retries=0)

    def _read(self, client: redis.Redis) -> None:
        began_s = SYSTEM_CLOCK.monotonic_s()
        try:
            read = RedisSwitches(client, self._settings.namespace).read()
        except RedisError as error:
            if not self._failing:
                log.warning(
                    "the pauses and kill switches were not read: this worker keeps to those that "
                    "it knows, and reads again every %g s: %s",
                    INTERVAL_S,
                    error,
                    extra={"action": "switches_unreadable"},
                )
            self._failing = True
        else:
            self._failing = False
            self._known.note_read(read, began_s)
