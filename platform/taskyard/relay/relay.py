"""The relay as a process: it carries out batches of intents, each batch in one transaction.

The transaction locks the intents' rows from the claim to the commit. After a crash at any point the
next relay takes the intents, and the requests' ids show which records were changed already. Only
publications can happen twice: both copies have the same stamp, and only one of them can begin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from taskyard import outbox
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.database.outage_retry import repeat
from taskyard.errors import GateClosed, SchemaMismatch, ServerRefused, ServerUnreachable
from taskyard.outbox import Intent
from taskyard.relay.carry_out_batch import carry_out
from taskyard.relay.ports import GatePort, Ports, PublisherPort, QueuesPort, RecordsPort
from taskyard.relay.results import LONGEST_WAIT_S, Failed, log_results, write_results
from taskyard.settings import Settings
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["Relay"]

_IDLE_S: Final = 0.2  # how long an operator's verb may wait for an idle relay
_FIRST_INTENTS: Final = 50
_MOST_INTENTS: Final = 400
# A batch that took longer is followed by a smaller one, a shorter one by a larger one.
_LONG_S: Final = 0.25
_SHORT_S: Final = 0.1
_OUTAGES: Final = (ServerUnreachable, ServerRefused, SchemaMismatch, SQLAlchemyError)
# A value of one intent that no table can store.
_OF_ONE_INTENT: Final = (DataError, IntegrityError)


class _Lane:
    """One lane, and how many intents its next batch takes.

    A batch of one lane is what an intent of the other lane waits for, and it holds locks. So its
    size follows the time that the last one took.
    """

    def __init__(self, *, bulk: bool) -> None:
        self.bulk, self.size = bulk, _FIRST_INTENTS

    def note(self, count: int, seconds: float) -> None:
        """Note how many intents the last batch had and how long it took."""
        if seconds > _LONG_S:
            self.note_failure()
        elif count == self.size and seconds < _SHORT_S:
            self.size = min(_MOST_INTENTS, self.size * 2)

    def note_failure(self) -> None:
        """Take fewer intents next time: fewer are repeated if that fails too."""
        self.size = max(1, self.size // 2)


class _Batch:
    """The intents that one transaction claims; they are known also if it fails."""

    def __init__(self, claim: Callable[[Connection], list[Intent]]) -> None:
        self._claim = claim
        self.intents: list[Intent] = []

    def claim(self, connection: Connection) -> list[Intent]:
        """Lock and return the intents."""
        self.intents = self._claim(connection)
        return self.intents


class Relay:
    """Carries out intents; any number of relays may run at once."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        records: RecordsPort,
        publisher: PublisherPort,
        gate: GatePort,
        queues: QueuesPort | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Set up the relay.

        `queues` are checked before a record is changed; without `queues` every queue counts as
        reachable.
        """
        self._ports = Ports(settings, records, publisher, queues)
        self._engine, self._gate, self._clock = engine, gate, clock
        self._backoff = FailureBackoff(longest_s=LONGEST_WAIT_S)
        self._lanes = (_Lane(bulk=False), _Lane(bulk=True))

    def run(self, stop: threading.Event) -> None:
        """Carry out intents until `stop` is set.

        While a server is unreachable or the gate is closed, wait.
        """

        def step() -> None:
            self._gate.beat(self._engine)
            if not self.run_once():
                stop.wait(_IDLE_S)

        repeat("relay", step, stop, also=(GateClosed, RedisError))

    def run_once(self) -> bool:
        """Carry out, refuse or postpone a batch of single verbs, then a batch of bulk verbs.

        So a single verb waits for one batch of bulk verbs at most, and neither lane stops the
        other. Return False if nothing is due. Raises `GateClosed` where `run` would wait.
        """
        claimed = [self._serve(lane) for lane in self._lanes]
        return any(claimed)

    def _serve(self, lane: _Lane) -> bool:
        """Carry out the next batch of a lane; return False if nothing is due there."""
        batch = _Batch(partial(outbox.claim, bulk=lane.bulk, most=lane.size))
        began_s = self._clock.monotonic_s()
        try:
            self._carry_out(batch)
        except Exception:
            lane.note_failure()
            raise
        lane.note(len(batch.intents), self._clock.monotonic_s() - began_s)
        return bool(batch.intents)

    def _carry_out(self, batch: _Batch) -> None:
        """Carry out a batch; an intent that makes it fail unexpectedly is set aside alone."""
        try:
            self._transact(batch)
        except Exception as error:
            whole = isinstance(error, _OUTAGES) and not isinstance(error, _OF_ONE_INTENT)
            if whole or not batch.intents:
                raise
            self._apart(batch.intents, error)

    def _transact(self, batch: _Batch) -> None:
        with self._engine.begin() as connection:
            self._gate.check(connection)
            intents = batch.claim(connection)
            results = carry_out(connection, self._ports, intents) if intents else {}
        log_results(intents, results, self._backoff)

    def _apart(self, intents: Sequence[Intent], error: Exception) -> None:
        """Carry out the halves of a batch that failed, or set aside the one intent that fails."""
        if len(intents) == 1:
            self._set_aside(intents[0], error)
            return
        middle = len(intents) // 2
        for half in (intents[:middle], intents[middle:]):
            ids = [each.id for each in half]
            self._carry_out(_Batch(partial(outbox.claim_again, ids=ids)))

    def _set_aside(self, intent: Intent, error: Exception) -> None:
        """Postpone an intent that failed unexpectedly, so that it does not stop the others."""
        results = {intent.id: Failed(error)}
        with self._engine.begin() as connection:
            write_results(connection, [intent], results)
        log_results([intent], results, self._backoff)
