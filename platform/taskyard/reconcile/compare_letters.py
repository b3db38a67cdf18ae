"""Dead letters that a record names and Postgres lacks, or that Postgres has without a record."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, select

from taskyard.control.letter_status import mark_replayed
from taskyard.database.tables import LETTERS
from taskyard.deadletters import KeptLetters, LetterBox
from taskyard.errors import UnreadableCopy
from taskyard.inspection.record_fields import BATCH, Seen, read_records
from taskyard.inspection.search_budget import Budget
from taskyard.jobs.letter_states import OPEN, OUTCOMES, ReplayOutcome
from taskyard.jobs.states import TERMINAL, State
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.records import Records
from taskyard.wire import letter_id

__all__ = ["letter_of", "missing_letters", "not_mirrored", "waiting_letters"]


def not_mirrored(engine: Engine, dead: Sequence[Seen]) -> list[Seen]:
    """Return the dead-lettered records whose dead letter is not in Postgres."""
    by_letter = {uuid.UUID(letter_of(seen)): seen for seen in dead}
    if not by_letter:
        return []
    query = select(LETTERS.c.id).where(LETTERS.c.id.in_(list(by_letter)))
    with engine.connect() as connection:
        known = set(connection.scalars(query))
    return [seen for letter, seen in by_letter.items() if letter not in known]


def missing_letters(
    missing: Sequence[Seen], kept: KeptLetters, box: LetterBox
) -> Iterator[Finding]:
    """Yield a finding for each dead letter that is neither in Postgres nor on its way there."""
    for seen in missing:
        try:
            letter = kept.find(letter_of(seen), seen.numbers["decided"])
        except UnreadableCopy:
            letter = None
            yield Finding(Kind.COPY_UNREADABLE, seen.job_id)
        mend = None if letter is None else lambda letter=letter: _post(box, letter)
        yield Finding(Kind.LETTER_MISSING, seen.job_id, mend)


def _post(box: LetterBox, letter: Any) -> bool:
    box.post(letter)
    return True


def waiting_letters(
    engine: Engine, records: Records, budget: Budget, limit: int
) -> Iterator[Finding]:
    """Yield dead letters that wait for an operator although their job went on or has no record."""
    query = (
        select(LETTERS.c.id, LETTERS.c.original_request_id, LETTERS.c.epoch, LETTERS.c.generation)
        .where(LETTERS.c.status.in_(OPEN), LETTERS.c.version > 0)
        .where(LETTERS.c.original_request_id.is_not(None))
        .order_by(LETTERS.c.decided_at.desc())
        .limit(limit)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    for start in range(0, len(rows), BATCH):
        if not budget.ask():
            return
        batch = rows[start : start + BATCH]
        job_ids = [row.original_request_id for row in batch]
        seen = read_records(records.client, records.keys, job_ids)
        for row, record in zip(batch, seen, strict=True):
            yield from _judge(engine, row, record)


def _judge(engine: Engine, row: Any, seen: Seen) -> Iterator[Finding]:
    if seen.state is State.NONE:
        yield Finding(Kind.LETTER_WITHOUT_RECORD, str(row.id))
    elif seen.epoch == row.epoch and seen.generation > row.generation:
        ended = seen.state in TERMINAL or seen.state is State.DEAD_LETTERED
        outcome = OUTCOMES.get(seen.state) if ended else None
        yield Finding(
            Kind.LETTER_BEHIND, str(row.id), lambda: _mark_replayed(engine, row.id, outcome)
        )


def _mark_replayed(engine: Engine, letter: uuid.UUID, outcome: ReplayOutcome | None) -> bool:
    with engine.begin() as connection:
        return mark_replayed(connection, letter, outcome)


def letter_of(seen: Seen) -> str:
    """Return the id of the dead letter of this death."""
    return letter_id(seen.job_id, seen.epoch, seen.generation)
