"""Two feeds of the same shape: take a batch, commit it, and only then acknowledge it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from taskyard.access.verify_credential import Verifier
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.database.postgres_errors import Refusal, meaning
from taskyard.mirror.audit_worker_verbs import is_verb, store_verbs
from taskyard.mirror.delivery_port import Delivery, LetterSource
from taskyard.mirror.lifecycle_stream import LifecycleStream, StreamEntry
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.settings import Settings

__all__ = ["BATCH", "EventFeed", "LetterFeed"]

# Above 500 a batch is hardly faster, and a failing one takes longer to halve.
BATCH: Final = 500
_RECLAIM_EVERY_S: Final = 5.0
_UNCLEAR_TRIES: Final = 5  # together with the waits between them about 15 s


class _Doubt:
    """Counts how often in a row Postgres refused one batch with an unclear cause.

    A first refusal may come from a server in trouble. If the refusals reach the limit while the
    rest of the batch is stored, the data is at fault: one row must not delay all later rows.
    """

    def __init__(self) -> None:
        self._refusals = 0

    @property
    def spent(self) -> bool:
        return self._refusals >= _UNCLEAR_TRIES

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a refusal raised inside; success resets the count."""
        try:
            yield
        except DBAPIError as error:
            self._refusals += meaning(error.orig) is Refusal.UNCLEAR
            raise
        self._refusals = 0


class LetterFeed:
    """Stores dead letters in `dead_letter_queue`; a batch is kept until its rows are committed."""

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
        """Store one batch; return how many deliveries it had."""
        self._held = self._held or self._source.take(self._batch, wait_s)
        if not self._held:
            return 0
        with self._doubt.counted(), self._engine.begin() as connection:
            store_letters(connection, self._held, self._clock, self._doubt.spent)
        # It is committed. If the acknowledgement fails, the batch comes again and changes nothing.
        done, self._held = self._held, ()
        self._source.acknowledge(done)
        return len(done)


class EventFeed:
    """Stores the lifecycle stream in ledger, history and audit log.

    A batch is kept until its rows are committed. `verifier` verifies the signatures of verbs in the
    stream; by default it has no key.
    """

    def __init__(
        self,
        engine: Engine,
        stream: LifecycleStream,
        clock: Clock,
        batch: int = BATCH,
        verifier: Verifier | None = None,
    ) -> None:
        self._verifier = Verifier(Settings()) if verifier is None else verifier
        self._engine, self._stream, self._clock, self._batch = engine, stream, clock, batch
        self._held: Sequence[StreamEntry] = ()
        self._doubt = _Doubt()
        self._reclaim_at_s = clock.monotonic_s()

    def step(self, wait_s: float) -> int:
        """Store one batch; return how many entries it had."""
        self._held = self._held or self._reclaimed() or self._taken(wait_s)
        if not self._held:
            return 0
        verbs = [entry for entry in self._held if is_verb(entry)]
        events = [entry for entry in self._held if not is_verb(entry)] if verbs else self._held
        workers = self._stream.announced(verbs)
        with self._doubt.counted(), self._engine.begin() as connection:
            store_events(connection, events, unclear=self._doubt.spent)
            store_verbs(connection, verbs, self._verifier, workers)
        done, self._held = self._held, ()
        self._stream.settle(done)
        return len(done)

    def _taken(self, wait_s: float) -> Sequence[StreamEntry]:
        return self._stream.take(self._batch, int(wait_s * 1000))

    def _reclaimed(self) -> Sequence[StreamEntry]:
        if self._clock.monotonic_s() < self._reclaim_at_s:
            return ()
        found = self._stream.reclaim(self._batch)
        if not found:  # there may be more after a full batch of a dead consumer
            self._stream.forget_dead()
            self._reclaim_at_s = self._clock.monotonic_s() + _RECLAIM_EVERY_S
        return found
