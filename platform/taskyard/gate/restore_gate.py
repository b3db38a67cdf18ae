"""The gate closes after a restore: intents from before the restore may be done already.

One mark is in Postgres (`restore_gate`), one in Redis (`<namespace>:gate`). Relays advance both
marks together. A store that was restored, flushed or replaced has an older mark than the other
store.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final, Self

import redis
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.database.tables import GATE
from taskyard.errors import GateClosed

__all__ = ["BEAT_S", "Gate", "Mark", "disagreement"]

_REMEDY: Final = (
    "The relay carries out no request until an operator has compared the stores. Run: taskyard "
    "reconcile; then open the gate with: taskyard reconcile --accept"
)
BEAT_S: Final = 5.0
"""Seconds between two beats: a restore to less than about two beats ago is not noticed."""

# A writer that dies between the two stores leaves Redis one beat ahead; a server that loses its
# last second leaves either one behind. Both happen in normal use, and the records' scripts tolerate
# them.
_TOLERATED: Final = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """A store's mark: `beat` changes every `BEAT_S`, `token` when an operator accepts a restore."""

    token: uuid.UUID
    beat: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the mark in a text that `encode` made; raises ValueError."""
        token, _, beat = raw.decode().partition(" ")
        return cls(uuid.UUID(token), int(beat))

    def encode(self) -> str:
        """Return the mark as Redis holds it."""
        return f"{self.token} {self.beat}"


def disagreement(postgres: Mark | None, redis: Mark | None) -> str | None:
    """Return why intents from Postgres may not be published; None if both stores agree."""
    if redis is None:
        why = "Redis has no mark and Postgres has one: Redis was flushed, replaced or restored"
        return None if postgres is None else why
    if postgres is None:
        why = "Postgres has no mark: it was replaced, or restored to a time before the first one"
        # A first start that crashed between the two stores leaves the first beat in one of them.
        return None if redis.beat <= _TOLERATED else why
    return _compare(postgres, redis)


def _compare(postgres: Mark, redis: Mark) -> str | None:
    if postgres.token != redis.token:
        return "the marks of Redis and Postgres belong to different restores or installations"
    ahead = redis.beat - postgres.beat
    if abs(ahead) <= _TOLERATED:
        return None
    older, newer = ("Postgres", "Redis") if ahead > 0 else ("Redis", "Postgres")
    at_least_s = (abs(ahead) - _TOLERATED) * BEAT_S
    return f"{older} is at least {at_least_s:g} s of relay time behind {newer}: it was restored"


class Gate:
    """The gate of one namespace; any number of processes may use it."""

    def __init__(self, namespace: str, client: redis.Redis, clock: Clock = SYSTEM_CLOCK) -> None:
        self._namespace, self._client, self._clock = namespace, client, clock
        self._key = f"{namespace}:gate"
        self._beat_at_s = float("-inf")

    def why_closed(self, connection: Connection) -> str | None:
        """Return why nothing may be published; None if the gate is open."""
        return disagreement(self._in_postgres(connection), self._in_redis())

    def check(self, connection: Connection) -> None:
        """Raise `GateClosed` unless both stores agree."""
        why = self.why_closed(connection)
        if why is not None:
            raise GateClosed(f"the gate is closed: {why}. {_REMEDY}")

    def beat(self, engine: Engine) -> None:
        """Advance both marks if it is time; raises `GateClosed` if the marks disagree."""
        if self._clock.monotonic_s() < self._beat_at_s:
            return
        with engine.begin() as connection:
            # The row's lock lets only one process write both; if there is no row, the insert is the
            # lock.
            known = self._in_postgres(connection, lock=True)
            self.check(connection)
            mark = Mark(uuid.uuid4(), 1) if known is None else Mark(known.token, known.beat + 1)
            self._write(connection, mark)
        self._beat_at_s = self._clock.monotonic_s() + BEAT_S

    def accept(self, connection: Connection) -> None:
        """Make the marks of both stores agree; the caller has compared the stores."""
        self._in_postgres(connection, lock=True)
        self._write(connection, Mark(uuid.uuid4(), 1))

    def _in_postgres(self, connection: Connection, *, lock: bool = False) -> Mark | None:
        query: Any = select(GATE.c.token, GATE.c.beat).where(GATE.c.namespace == self._namespace)
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else Mark(row.token, row.beat)

    def _in_redis(self) -> Mark | None:
        raw: Any = self._client.get(self._key)
        if raw is None:
            return None
        return Mark.parse(raw if isinstance(raw, bytes) else raw.encode())

    def _write(self, connection: Connection, mark: Mark) -> None:
        values = {"namespace": self._namespace, "token": mark.token, "beat": mark.beat}
        row = insert(GATE).values(**values, beaten_at=func.clock_timestamp())
        changed = {name: row.excluded[name] for name in ("token", "beat", "beaten_at")}
        connection.execute(row.on_conflict_do_update(index_elements=["namespace"], set_=changed))
        # Before the commit: after a crash here Redis is one beat ahead, which is tolerated.
        self._client.set(self._key, mark.encode())
