"""The letter's table: every status of a dead letter, and what the end of its replay says of it.

This is the only place where they are written down. The database holds the same lists as CHECK
constraints, `docs/states.md` mirrors them, and tests compare the three.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taskyard.jobs.states import State

__all__ = ["OPEN", "OUTCOMES", "LetterStatus", "ReplayOutcome", "first_status"]


class LetterStatus(StrEnum):
    """What has become of a dead letter."""

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
"""The letters that wait for an operator; only these take a replay."""

# A job that an operator cancelled or aborted proved nothing about its replay: no outcome.
OUTCOMES: Final[dict[State, ReplayOutcome]] = {
    State.COMPLETED: ReplayOutcome.SUCCESS,
    State.DEAD_LETTERED: ReplayOutcome.FAILED,
    State.FAILED: ReplayOutcome.FAILED,
}


def first_status(escalate_to: str | None) -> LetterStatus:
    """The status of a new letter; `escalate_to` is the review queue its policy names, if any."""
    return LetterStatus.PENDING if escalate_to is None else LetterStatus.MANUAL_REVIEW
