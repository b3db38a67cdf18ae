"""The queue of intents: add, claim in order, finish or postpone.

A claimed row is locked until the claimer's transaction ends, so after a crash the row is free at
once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, exists, func, insert, or_, select, update

from taskyard.database.tables import OUTBOX
from taskyard.wire.redaction import redact_text

__all__ = [
    "Intent",
    "add_facts",
    "await_attempt",
    "claim",
    "finish",
    "postpone",
    "put",
    "why_waiting",
]

AWAITS_ATTEMPT: Final = "awaits_attempt"


@dataclass(frozen=True, slots=True)
class Intent:
    """An intent: an action outside Postgres that the relay must carry out.

    `id` is the id of the request.
    """

    id: uuid.UUID
    kind: str
    job_id: str
    epoch: int
    payload: Mapping[str, Any]
    attempts: int = 0


def put(connection: Connection, intent: Intent) -> None:
    """Add `intent` in the caller's transaction."""
    connection.execute(
        insert(OUTBOX).values(
            id=intent.id,
            kind=intent.kind,
            job_id=intent.job_id,
            epoch=intent.epoch,
            payload=dict(intent.payload),
        )
    )


def claim(connection: Connection) -> Intent | None:
    """Lock and return the oldest open intent that no relay holds; None if there is no such intent.

    The intents of one job are carried out in order: a younger intent waits for an older one, unless
    the older one only waits for an attempt to end.
    """
    older = OUTBOX.alias("older")
    waits = exists().where(
        older.c.job_id == OUTBOX.c.job_id,
        older.c.done_at.is_(None),
        older.c.position < OUTBOX.c.position,
        older.c.payload[AWAITS_ATTEMPT].astext.is_(None),
    )
    query = (
        select(OUTBOX)
        .where(OUTBOX.c.done_at.is_(None), ~waits)
        .where(or_(OUTBOX.c.not_before.is_(None), OUTBOX.c.not_before <= func.clock_timestamp()))
        .order_by(OUTBOX.c.position)
        .limit(1)
        .with_for_update(skip_locked=True, of=OUTBOX)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Intent(row.id, row.kind, row.job_id, row.epoch, row.payload, row.attempts)


def finish(connection: Connection, intent_id: uuid.UUID) -> None:
    """Mark an intent as carried out, or as refused for good."""
    _set(connection, intent_id, done_at=func.clock_timestamp())


def postpone(connection: Connection, intent_id: uuid.UUID, wait: timedelta, error: str) -> None:
    """Keep an intent open for another try after `wait`; store what went wrong, secrets masked."""
    _set(
        connection,
        intent_id,
        not_before=func.clock_timestamp() + wait,
        last_error=redact_text(error.replace("\x00", ""))[:2000],
    )


def add_facts(connection: Connection, intent: Intent, facts: Mapping[str, Any]) -> None:
    """Add facts to an intent's payload, for its next try."""
    if facts:
        values = {"payload": {**intent.payload, **facts}}
        connection.execute(update(OUTBOX).where(OUTBOX.c.id == intent.id).values(values))


def await_attempt(
    connection: Connection, intent: Intent, wait: timedelta, why: str, facts: Mapping[str, Any]
) -> None:
    """Keep an intent open until an attempt of its job has ended; the next try is after `wait`.

    `facts` are added to the intent's payload.
    """
    add_facts(connection, intent, {**facts, AWAITS_ATTEMPT: True})
    postpone(connection, intent.id, wait, why)


def why_waiting(connection: Connection, intent_id: uuid.UUID) -> str | None:
    """Return why an open intent waits; None before its first try, and after a success."""
    query = select(OUTBOX.c.last_error).where(OUTBOX.c.id == intent_id, OUTBOX.c.done_at.is_(None))
    return connection.scalar(query)


def _set(connection: Connection, intent_id: uuid.UUID, **values: Any) -> None:
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == intent_id)
        .values(attempts=OUTBOX.c.attempts + 1, **values)
    )
