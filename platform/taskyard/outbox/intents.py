"""The queue of intents: add one, claim the next ones in order.

Claimed rows are locked until the claimer's transaction ends, so after a crash they are free at
once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, exists, func, insert, or_, select, update

from taskyard.database.tables import OUTBOX

__all__ = [
    "AWAITS_ATTEMPT",
    "BULK_ABOVE",
    "CARRIED_OUT",
    "Intent",
    "Older",
    "bring_forward",
    "claim",
    "claim_again",
    "is_bulk",
    "lock_older",
    "put",
    "why_waiting",
]

AWAITS_ATTEMPT: Final = "awaits_attempt"
CARRIED_OUT: Final = "carried_out"
"""In the payload of an intent that has changed its job's record, and waits for its last steps."""
BULK_ABOVE: Final = 10
"""A request for more jobs or letters than this goes through the lane of bulk verbs.

The relay carries so many out within its first batch, so they delay no other verb.
"""

_DUE: Final = func.coalesce(OUTBOX.c.not_before, OUTBOX.c.created_at)


@dataclass(frozen=True, slots=True, eq=False)
class Intent:
    """An intent: an action outside Postgres that the relay must carry out.

    `id` is the id of the request; it is also the `job_id` of a request that is for no one job.
    `bulk` is the lane: that of bulk verbs, or that of single ones.
    """

    id: uuid.UUID
    kind: str
    job_id: str
    epoch: int
    payload: Mapping[str, Any]
    attempts: int = 0
    bulk: bool = False

    @property
    def is_for_a_job(self) -> bool:
        """Whether the request is for one job, not for a whole queue."""
        return self.job_id != str(self.id)


def is_bulk(targets: int) -> bool:
    """Return whether a request for so many jobs or letters goes through the lane of bulk verbs."""
    return targets > BULK_ABOVE


def put(connection: Connection, intent: Intent) -> None:
    """Add `intent` in the caller's transaction."""
    connection.execute(
        insert(OUTBOX).values(
            id=intent.id,
            kind=intent.kind,
            job_id=intent.job_id,
            epoch=intent.epoch,
            payload=dict(intent.payload),
            bulk=intent.bulk,
        )
    )


def claim(connection: Connection, *, bulk: bool, most: int) -> list[Intent]:
    """Lock and return at most `most` due intents of a lane that no relay holds, oldest first.

    The intents of one job are carried out in order: a younger intent waits for an older one, unless
    the older one only waits for an attempt to end. A postponed intent is as old as its next try, so
    it neither passes those that came before that time, nor waits for those that came after it.
    """
    # Not clock_timestamp(): the index can only be searched for a time that is fixed.
    query = (
        _free()
        .where(OUTBOX.c.bulk == bulk, func.statement_timestamp() >= _DUE)
        .order_by(_DUE, OUTBOX.c.position)
        .limit(most)
    )
    return _one_a_job(connection.execute(query).all())


def claim_again(connection: Connection, ids: Sequence[uuid.UUID]) -> list[Intent]:
    """Lock and return those of the given intents that are open, due and free; oldest first."""
    due = or_(OUTBOX.c.not_before.is_(None), OUTBOX.c.not_before <= func.clock_timestamp())
    query = _free().where(OUTBOX.c.id.in_(ids), due).order_by(OUTBOX.c.position)
    return _one_a_job(connection.execute(query).all())


@dataclass(frozen=True, slots=True)
class Older:
    """An open intent of a job; it is `scheduled` if it was never due."""

    intent: Intent
    scheduled: bool

    @property
    def awaits_attempt(self) -> bool:
        """Whether it only waits for an attempt of its job to end."""
        return AWAITS_ATTEMPT in self.intent.payload

    @property
    def has_changed_the_record(self) -> bool:
        """Whether a relay has noted that; without the note it may have been changed too."""
        return self.awaits_attempt or CARRIED_OUT in self.intent.payload


def lock_older(connection: Connection, job_id: str) -> list[Older]:
    """Lock and return the open intents of a job that no relay holds at this moment, oldest first.

    Until the caller's transaction ends, no relay carries them out.
    """
    later = OUTBOX.c.not_before > func.clock_timestamp()
    scheduled = func.coalesce(later, False) & (OUTBOX.c.attempts == 0)
    query = (
        select(OUTBOX, scheduled.label("scheduled"))
        .where(OUTBOX.c.job_id == job_id, OUTBOX.c.done_at.is_(None))
        .order_by(OUTBOX.c.position)
        .with_for_update(skip_locked=True)
    )
    return [Older(_intent(row), row.scheduled) for row in connection.execute(query)]


def bring_forward(connection: Connection, ids: Sequence[uuid.UUID], *, bulk: bool) -> None:
    """Let intents be tried now, in the lane of the intent that waits for them."""
    values = {"bulk": OUTBOX.c.bulk & bulk, "not_before": None}
    if ids:
        connection.execute(update(OUTBOX).where(OUTBOX.c.id.in_(ids)).values(values))


def _free() -> Select[Any]:
    """Return the query for open intents that no relay holds and that need not wait for others."""
    older = OUTBOX.alias("older")
    waits = exists().where(
        older.c.job_id == OUTBOX.c.job_id,
        older.c.done_at.is_(None),
        older.c.position < OUTBOX.c.position,
        older.c.payload[AWAITS_ATTEMPT].astext.is_(None),
    )
    query = select(OUTBOX).where(OUTBOX.c.done_at.is_(None), ~waits)
    return query.with_for_update(skip_locked=True, of=OUTBOX)


def _one_a_job(rows: Sequence[Row[Any]]) -> list[Intent]:
    """Return the first intent of each job: steps of one batch are taken for all jobs together."""
    first: dict[str, Intent] = {}
    for row in rows:
        first.setdefault(row.job_id, _intent(row))
    return list(first.values())


def _intent(row: Row[Any]) -> Intent:
    return Intent(row.id, row.kind, row.job_id, row.epoch, row.payload, row.attempts, row.bulk)


def why_waiting(connection: Connection, intent_id: uuid.UUID) -> str | None:
    """Return why an open intent waits; None before its first try, and after a success."""
    query = select(OUTBOX.c.last_error).where(OUTBOX.c.id == intent_id, OUTBOX.c.done_at.is_(None))
    return connection.scalar(query)
