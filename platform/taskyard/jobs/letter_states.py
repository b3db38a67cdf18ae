"""The states of a dead letter in one table: each status, and the outcomes of a replay.

They are defined only here. The database has the same lists as CHECK constraints, `docs/states.md`
mirrors them, and tests compare the three.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taskyard.jobs.states import State

__all__ = ["ENDINGS", "OPEN", "OUTCOMES", "LetterStatus", "ReplayOutcome", "first_status"]


class LetterStatus(StrEnum):
    """The status of a dead letter."""

    PENDING = "pending"
    MANUAL_REVIEW = "manual_review"
    RETRY_SCHEDULED = "retry_scheduled"
    REPLAYED = "replayed"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class ReplayOutcome(StrEnum):
    """How the job of a replayed letter ended."""

    SUCCESS = "success"
    FAILED = "failed"


OPEN: Final = (LetterStatus.PENDING, LetterStatus.MANUAL_REVIEW)
"""Dead letters with these statuses wait for an operator; only they can be replayed."""

# The end of a job that an operator cancelled or aborted says nothing about its replay: no outcome.
OUTCOMES: Final[dict[State, ReplayOutcome]] = {
    State.COMPLETED: ReplayOutcome.SUCCESS,
    State.DEAD_LETTERED: ReplayOutcome.FAILED,
    State.FAILED: ReplayOutcome.FAILED,
}

ENDINGS: Final[dict[State, LetterStatus]] = {
    State.COMPLETED: LetterStatus.COMPLETED,
    State.CANCELLED: LetterStatus.CANCELLED,
    State.ABORTED: LetterStatus.CANCELLED,
}
"""The status of an open dead letter whose job an operator has ended, by the job's state."""


def first_status(escalate_to: str | None) -> LetterStatus:
    """Return a new dead letter's status; `escalate_to` is its policy's review queue, if any."""
    return LetterStatus.PENDING if escalate_to is None else LetterStatus.MANUAL_REVIEW
