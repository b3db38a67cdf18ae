"""Close the open dead letters of jobs that an operator has ended, as far as the ledger knows.

The relay closes a job's letter when it carries the verb out. A letter that reaches Postgres later,
or is opened again because its replay was refused, would stay open for ever: no verb meets its job.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, case, update

from taskyard.database.tables import LEDGER, LETTERS
from taskyard.jobs.letter_states import ENDINGS, OPEN

__all__ = ["close_letters_of"]


def close_letters_of(connection: Connection, jobs: Collection[str]) -> None:
    """Close the open letters of those of `jobs` that ended in the letter's own generation.

    Only an operator ends a job in the generation in which it became a dead letter. A row that is
    not open is written unchanged, so that this waits for whoever changes it in this moment.
    """
    if not jobs:
        return
    closed = case(
        {state.value: status.value for state, status in ENDINGS.items()}, value=LEDGER.c.state
    )
    change = (
        update(LETTERS)
        .where(
            LETTERS.c.original_request_id.in_(jobs),
            LEDGER.c.job_id == LETTERS.c.original_request_id,
            LEDGER.c.epoch == LETTERS.c.epoch,
            LEDGER.c.generation == LETTERS.c.generation,
            LEDGER.c.state.in_([state.value for state in ENDINGS]),
        )
        .values(status=case((LETTERS.c.status.in_(OPEN), closed), else_=LETTERS.c.status))
    )
    connection.execute(change)
