"""The mirror as a process: two feeds and the upkeep of partitions, until it is stopped."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

import redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from taskyard.access.verify_credential import Verifier
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.nonces import drop_expired
from taskyard.database.outage_retry import repeat
from taskyard.mirror.batch_feeds import EventFeed, LetterFeed
from taskyard.mirror.delivery_port import LetterSource
from taskyard.mirror.lifecycle_stream import LifecycleStream
from taskyard.mirror.partition_upkeep import EVERY_S, keep_partitions
from taskyard.settings import Settings

__all__ = ["Mirror", "Mirrored"]

_WAIT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The result of one round: the numbers of stored dead letters and of stored stream entries."""

    letters: int
    events: int


class Mirror:
    """Copies letters and lifecycle events into Postgres; any number of mirrors may run at once."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        client: redis.Redis,
        letters: LetterSource,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings, self._engine, self._clock = settings, engine, clock
        consumer = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        stream = LifecycleStream(client, settings.namespace, consumer)
        self._letters = LetterFeed(engine, letters, clock)
        self._events = EventFeed(engine, stream, clock, verifier=Verifier(settings, clock))

    def run_once(self, wait_s: float = 0.0) -> Mirrored:
        """Store one batch of dead letters and one of events.

        Raises `ServerUnreachable` where `run` would wait.
        """
        return Mirrored(letters=self._letters.step(wait_s), events=self._events.step(wait_s))

    def run(self, stop: threading.Event) -> None:
        """Mirror until `stop` is set; acknowledge nothing while a server is unreachable."""
        halt = threading.Event()
        with ThreadPoolExecutor(max_workers=3, thread_name_prefix="mirror") as pool:
            steps: dict[str, Callable[[], object]] = {
                "mirror_letters": lambda: self._letters.step(_WAIT_S),
                "mirror_events": lambda: self._events.step(_WAIT_S),
                "mirror_upkeep": self._upkeep(halt),
            }
            loops = [
                pool.submit(repeat, name, step, halt, also=(RedisError,))
                for name, step in steps.items()
            ]
            try:
                _watch(loops, stop)
            finally:
                halt.set()
        for loop in loops:
            loop.result()

    def _upkeep(self, halt: threading.Event) -> Callable[[], None]:
        def step() -> None:
            keep_partitions(self._engine, self._settings, self._clock)
            with self._engine.begin() as connection:
                drop_expired(connection)
            halt.wait(EVERY_S)

        return step


def _watch(loops: list[Future[None]], stop: threading.Event) -> None:
    """Return when `stop` is set or a loop has failed.

    A mirror of which one loop has failed must not look healthy.
    """
    while not stop.is_set():
        done, _ = wait(loops, timeout=_WAIT_S, return_when=FIRST_COMPLETED)
        if done:
            return
