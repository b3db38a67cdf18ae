"""The end of a replayed job is the outcome of the letter that it was replayed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from taskyard.jobs.letter_states import OUTCOMES
from taskyard.ledger import Entry

__all__ = ["note_outcomes"]

# A redirect moves the generation too, so a letter takes the first end of any later generation.
_STATEMENT: Final = text(
    """
    WITH ends AS (
        SELECT * FROM unnest(
            CAST(:jobs AS text[]), CAST(:epochs AS bigint[]), CAST(:generations AS integer[]),
            CAST(:versions AS bigint[]), CAST(:outcomes AS text[])
        ) AS ended (job_id, epoch, generation, version, outcome)
    ), firsts AS (
        SELECT DISTINCT ON (letter.id, letter.decided_at)
            letter.id, letter.decided_at, ends.outcome
        FROM dead_letter_queue AS letter
        JOIN ends ON ends.job_id = letter.original_request_id
            AND ends.epoch = letter.epoch AND ends.generation > letter.generation
        WHERE letter.replayed_at IS NOT NULL AND letter.replay_outcome IS NULL
        ORDER BY letter.id, letter.decided_at, ends.version
    )
    UPDATE dead_letter_queue AS letter SET replay_outcome = firsts.outcome
    FROM firsts
    WHERE letter.id = firsts.id AND letter.decided_at = firsts.decided_at
    """
)


def note_outcomes(connection: Connection, entries: Sequence[Entry]) -> None:
    """Set `replay_outcome` on the letters whose replays ended in `entries`."""
    ended = [entry for entry in entries if entry.state in OUTCOMES and entry.number("generation")]
    if not ended:
        return
    connection.execute(
        _STATEMENT,
        {
            "jobs": [entry.job for entry in ended],
            "epochs": [entry.epoch for entry in ended],
            "generations": [entry.number("generation") for entry in ended],
            "versions": [entry.version for entry in ended],
            "outcomes": [OUTCOMES[entry.state].value for entry in ended],
        },
    )
