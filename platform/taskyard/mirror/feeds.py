"""Two feeds of one shape: take a batch, commit it, and only then settle it where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.database.faults import Refusal, meaning
from taskyard.mirror.deliveries import Delivery, LetterSource
from taskyard.mirror.letters import store_letters
from taskyard.mirror.lifecycle import store_events
from taskyard.mirror.stream import LifecycleStream, StreamEntry

__all__ = ["BATCH", "EventFeed", "LetterFeed"]

# Above 500 a batch gains little speed, and a failing one costs more to halve.
BATCH: Final = 500
_RECLAIM_EVERY_S: Final = 5.0
_UNCLEAR_TRIES: Final = 5  # with the waits between them about 15 s


class _Doubt:
    """How often in a row one batch was refused without saying whose fault that is.

    Once is a server's bad moment. What is still refused when it is spent, while the rest of the
    batch is not, is refused data: one row does not hold up all that comes behind it.
    """

    def __init__(self) -> None:
        self._refusals = 0

    @property
    def spent(self) -> bool:
        return self._refusals >= _UNCLEAR_TRIES

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a refusal of what is done inside; success resets the count."""
        try:
            yield
        except DBAPIError as error:
            self._refusals += meaning(error.orig) is Refusal.UNCLEAR
            raise
        self._refusals = 0


class LetterFeed:
    """Dead letters into `dead_letter_queue`. A batch is kept until it is committed."""

    def __init__(
        self,
        engine: Engine,
        source: LetterSource,
        clock: Clock = SYSTEM_CLOCK,
        batch: int = BATCH,
    ) -> None:
        self._engine, self._source, self._clock, self._batch = engine, source, clock, batch
        self._held: Sequence[Delivery] = ()
        self._doubt = _Doubt()

    def step(self, wait_s: float) -> int:
        """Store one batch; how many deliveries it had."""
        self._held = self._held or self._source.take(self._batch, wait_s)
        if not self._held:
            return 0
        with self._doubt.counted(), self._engine.begin() as connection:
            store_letters(connection, self._held, self._clock, self._doubt.spent)
        # Committed. If the acknowledgement fails, the batch comes again and changes nothing.
        done, self._held = self._held, ()
        self._source.acknowledge(done)
        return len(done)


class EventFeed:
    """The lifecycle stream into ledger and history. A batch is kept until it is committed."""

    def __init__(
        self, engine: Engine, stream: LifecycleStream, clock: Clock, batch: int = BATCH
    ) -> None:
        self._engine, self._stream, self._clock, self._batch = engine, stream, clock, batch
        self._held: Sequence[StreamEntry] = ()
        self._doubt = _Doubt()
        self._reclaim_at_s = clock.monotonic_s()

    def step(self, wait_s: float) -> int:
        """Store one batch; how many entries it had."""
        self._held = self._held or self._reclaimed() or self._taken(wait_s)
        if not self._held:
            return 0
        with self._doubt.counted(), self._engine.begin() as connection:
            store_events(connection, self._held, unclear=self._doubt.spent)
        done, self._held = self._held, ()
        self._stream.settle(done)
        return len(done)

    def _taken(self, wait_s: float) -> Sequence[StreamEntry]:
        return self._stream.take(self._batch, int(wait_s * 1000))

    def _reclaimed(self) -> Sequence[StreamEntry]:
        if self._clock.monotonic_s() < self._reclaim_at_s:
            return ()
        found = self._stream.reclaim(self._batch)
        if not found:  # a full batch of a dead consumer may be followed by more
            self._stream.forget_dead()
            self._reclaim_at_s = self._clock.monotonic_s() + _RECLAIM_EVERY_S
        return found
