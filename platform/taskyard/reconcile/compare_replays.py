"""Operators' intents compared with the records that they should change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from taskyard import audit, outbox
from taskyard.audit import Outcome
from taskyard.control.letter_status import reopen
from taskyard.control.replay import KIND
from taskyard.database.tables import LETTERS, OUTBOX
from taskyard.inspection.find_messages import Messages
from taskyard.inspection.record_fields import BATCH, Seen, read_records
from taskyard.jobs.letter_states import LetterStatus
from taskyard.jobs.states import State
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.records import Records

__all__ = ["lost_replays", "open_replays"]


def open_replays(
    engine: Engine, records: Records, messages: Messages, limit: int, *, restored: bool
) -> Iterator[Finding]:
    """Yield intents that were carried out already; after a restore also those of unknown jobs."""
    query = (
        select(OUTBOX.c.id, OUTBOX.c.job_id)
        .where(OUTBOX.c.kind == KIND, OUTBOX.c.done_at.is_(None))
        .order_by(OUTBOX.c.position)
        .limit(limit)
    )
    for row, seen in _with_records(engine, records, query):
        if seen.texts["request"] == str(row.id) and _was_published(seen, messages):
            yield Finding(
                Kind.REPLAY_APPLIED,
                seen.job_id,
                lambda row=row, seen=seen: _finish(engine, row.id, seen),  # type: ignore[misc]
            )
        elif restored and seen.state is State.NONE:
            yield Finding(
                Kind.REPLAY_UNKNOWN,
                seen.job_id,
                lambda row=row: _refuse(engine, row.id),  # type: ignore[misc]
            )


def _was_published(seen: Seen, messages: Messages) -> bool:
    moved = seen.state is not State.ACCEPTED or seen.texts["published"] == "1"
    return moved or messages.serves(seen)


def lost_replays(engine: Engine, records: Records, limit: int) -> Iterator[Finding]:
    """Yield replays that count as done although the record's generation did not change."""
    query = (
        select(OUTBOX.c.id, OUTBOX.c.job_id, OUTBOX.c.epoch, LETTERS.c.generation)
        .join(LETTERS, LETTERS.c.id == func.uuid(OUTBOX.c.payload["letter_id"].astext))
        .where(OUTBOX.c.kind == KIND, OUTBOX.c.done_at.is_not(None))
        .where(LETTERS.c.status == LetterStatus.REPLAYED, LETTERS.c.replay_outcome.is_(None))
        .order_by(OUTBOX.c.position.desc())
        .limit(limit)
    )
    for row, seen in _with_records(engine, records, query):
        there = (seen.epoch, seen.generation) == (row.epoch, row.generation)
        if there and seen.state is State.DEAD_LETTERED:
            yield Finding(
                Kind.REPLAY_NOT_APPLIED,
                seen.job_id,
                lambda row=row: _reopen(engine, row.id),  # type: ignore[misc]
            )


def _with_records(engine: Engine, records: Records, query: Any) -> Iterator[tuple[Any, Seen]]:
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        seen = read_records(records.client, records.keys, [row.job_id for row in batch])
        yield from zip(batch, seen, strict=True)


def _held(connection: Connection, intent: uuid.UUID) -> Any:
    """Return the open intent, locked; None if a relay holds it or has finished it."""
    query = (
        select(OUTBOX)
        .where(OUTBOX.c.id == intent, OUTBOX.c.done_at.is_(None))
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).one_or_none()


def _finish(engine: Engine, intent: uuid.UUID, seen: Seen) -> bool:
    with engine.begin() as connection:
        if _held(connection, intent) is None:
            return False
        outbox.finish(connection, intent)
        detail = {"generation": seen.generation, "queue": seen.texts["queue"], "by": "reconcile"}
        audit.answer(connection, intent, Outcome.APPLIED, detail)
    return True


def _refuse(engine: Engine, intent: uuid.UUID) -> bool:
    with engine.begin() as connection:
        row = _held(connection, intent)
        if row is None:
            return False
        reopen(connection, uuid.UUID(row.payload["letter_id"]), row.payload["status_before"])
        outbox.finish(connection, intent)
        why = "requested before a restore, and Redis has no record of the job; decide again"
        audit.answer(connection, intent, audit.refused(why), {"by": "reconcile"})
    return True


def _reopen(engine: Engine, intent: uuid.UUID) -> bool:
    change = update(OUTBOX).where(OUTBOX.c.id == intent, OUTBOX.c.done_at.is_not(None))
    with engine.begin() as connection:
        return connection.execute(change.values(done_at=None, not_before=None)).rowcount > 0
