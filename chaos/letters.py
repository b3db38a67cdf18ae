"""Whether a dead letter's row in Postgres agrees with its job's record."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.jobs.letter_states import ENDINGS, OPEN, LetterStatus
from taskyard.jobs.states import State

__all__ = ["Letter", "misplaced"]


@dataclass(frozen=True, slots=True)
class Letter:
    """A row: the job that died, in which generation, and the letter's status."""

    id: str
    job: str
    generation: int
    status: str


def misplaced(letter: Letter, state: State, generation: int) -> str:
    """What is wrong, for a job in `state` and `generation`; empty if nothing is."""
    status = LetterStatus(letter.status)
    if letter.generation < generation:
        fits = status is LetterStatus.REPLAYED
    elif status in OPEN:
        fits = state is State.DEAD_LETTERED
    else:
        fits = status is ENDINGS.get(state)
    if letter.generation <= generation and fits:
        return ""
    return (
        f"it is {status} in generation {letter.generation}, and job {letter.job} is {state} in "
        f"generation {generation}"
    )
