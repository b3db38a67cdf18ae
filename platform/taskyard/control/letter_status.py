"""A dead letter's status: from open to replayed or closed, and back if a replay is refused."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, func, select, update

from taskyard.database.tables import LETTERS
from taskyard.jobs.letter_states import OPEN, LetterStatus, ReplayOutcome

__all__ = ["close_letter", "mark_replayed", "reopen"]


def mark_replayed(
    connection: Connection, letter_id: uuid.UUID, outcome: ReplayOutcome | None = None
) -> bool:
    """Mark an open dead letter as replayed; return False if it is not open.

    The mark is part of the caller's transaction. `outcome` is how the replayed job
    ended; None while the job has not ended.
    """
    change = (
        update(LETTERS)
        .where(LETTERS.c.id == letter_id, LETTERS.c.status.in_(OPEN))
        .values(
            status=LetterStatus.REPLAYED,
            replayed_at=func.clock_timestamp(),
            replay_outcome=outcome,
        )
    )
    return connection.execute(change).rowcount > 0


def reopen(connection: Connection, letter_id: uuid.UUID, status: str) -> bool:
    """Give a replayed dead letter its former `status` back.

    Return False if the dead letter is not marked as replayed.
    """
    change = (
        update(LETTERS)
        .where(LETTERS.c.id == letter_id, LETTERS.c.status == LetterStatus.REPLAYED)
        .values(status=LetterStatus(status), replayed_at=None)
    )
    return connection.execute(change).rowcount > 0


def close_letter(connection: Connection, letter_id: uuid.UUID, status: LetterStatus) -> bool:
    """Give an open dead letter its last status, because an operator has ended its job.

    Return False if Postgres has no such dead letter. One that is not open keeps its status.
    """
    # The row is locked first: the mirror may store it between two statements.
    known = select(LETTERS.c.status).where(LETTERS.c.id == letter_id).with_for_update()
    found = connection.scalar(known)
    if found in OPEN:
        change = update(LETTERS).where(LETTERS.c.id == letter_id).values(status=status)
        connection.execute(change)
    return found is not None
