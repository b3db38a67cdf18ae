"""A dead letter's status: from open to replayed or closed, and back if a replay is refused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, func, select, text, update

from taskyard.database.tables import LETTERS
from taskyard.jobs.letter_states import OPEN, LetterStatus, ReplayOutcome

__all__ = ["close_letters", "mark_replayed", "reopen", "reopen_many"]

_GIVEN: Final = "unnest(CAST(:ids AS uuid[]), CAST(:statuses AS text[])) AS given (id, status)"
_REOPEN: Final = text(
    f"""
    UPDATE dead_letter_queue AS letter SET status = given.status, replayed_at = NULL
    FROM {_GIVEN} WHERE letter.id = given.id AND letter.status = 'replayed'
    """  # noqa: S608 - constant
)
_CLOSE: Final = text(
    f"""
    UPDATE dead_letter_queue AS letter SET status = given.status
    FROM {_GIVEN} WHERE letter.id = given.id
    """  # noqa: S608 - constant
)


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
    return reopen_many(connection, {letter_id: status}) > 0


def reopen_many(connection: Connection, statuses: Mapping[uuid.UUID, str]) -> int:
    """Give replayed dead letters their former statuses back; return how many were replayed."""
    if not statuses:
        return 0
    known = {letter: LetterStatus(status) for letter, status in statuses.items()}
    return connection.execute(_REOPEN, _arrays(known)).rowcount


def close_letters(
    connection: Connection, statuses: Mapping[uuid.UUID, LetterStatus]
) -> frozenset[uuid.UUID]:
    """Give open dead letters their last statuses, because an operator has ended their jobs.

    Return the ids of those that Postgres has. One that is not open keeps its status.
    """
    if not statuses:
        return frozenset()
    # The rows are locked first: the mirror may store one between two statements.
    query = select(LETTERS.c.id, LETTERS.c.status).where(LETTERS.c.id.in_(statuses))
    found = connection.execute(query.order_by(LETTERS.c.id).with_for_update()).all()
    still_open = {row.id: statuses[row.id] for row in found if row.status in OPEN}
    if still_open:
        connection.execute(_CLOSE, _arrays(still_open))
    return frozenset(row.id for row in found)


def _arrays(statuses: Mapping[uuid.UUID, LetterStatus]) -> dict[str, list[str]]:
    return {
        "ids": [str(letter) for letter in statuses],
        "statuses": [status.value for status in statuses.values()],
    }
