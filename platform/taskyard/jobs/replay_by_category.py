"""What a replay needs for a dead letter of each category, in one table.

The mark `replay_eligible` of a dead letter follows from this table, and so does the refusal that an
operator gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from taskyard.wire.letter_categories import Category

__all__ = ["FANOUT", "NEEDS", "Needs", "replay_eligible"]

# In a letter's evidence: the fanout exchange whose message it is one worker's copy of.
FANOUT: Final = "fanout_exchange"


class Needs(StrEnum):
    """What an operator must add to a replay, so that the job does not fail again."""

    NOTHING = "nothing"
    EDITED_PAYLOAD = "an edited payload"
    FORCE = "force"
    A_NEW_JOB = "a new job"


NEEDS: Final[dict[Category, Needs]] = {
    Category.TIMEOUT: Needs.NOTHING,
    Category.RETRY_EXHAUSTED: Needs.NOTHING,
    Category.CIRCUIT_OPEN: Needs.NOTHING,
    Category.NON_RETRYABLE: Needs.NOTHING,
    Category.VALIDATION_ERROR: Needs.EDITED_PAYLOAD,
    Category.POISON: Needs.NOTHING,
    Category.EXPIRED: Needs.FORCE,
    Category.UNKNOWN_TASK: Needs.NOTHING,
    Category.UNKNOWN_HISTORY: Needs.NOTHING,
    Category.UNDECODABLE: Needs.A_NEW_JOB,
    Category.REJECTED: Needs.NOTHING,
    Category.INTERNAL_ERROR: Needs.NOTHING,
}


def replay_eligible(category: Category, evidence: Mapping[str, object] | None = None) -> bool:
    """Return whether a dead letter of this category may be replayed unchanged."""
    return NEEDS[category] is Needs.NOTHING and FANOUT not in (evidence or {})
