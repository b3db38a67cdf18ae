"""Which letters may be replayed, as a pure rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taskyard.errors import Refused
from taskyard.jobs import Category

__all__ = ["OPEN", "Candidate", "check_replayable"]

OPEN: Final = ("pending", "manual_review")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rule looks at; `replayed` says when and by whom, if ever."""

    letter_id: str
    status: str
    category: str
    eligible: bool
    replayed: str | None = None


def check_replayable(letter: Candidate, *, edited: bool, forced: bool) -> None:
    """Raise `Refused` with the reason and the way out, if there is one."""
    if letter.status == "replayed":
        raise Refused(f"letter {letter.letter_id} was already replayed {letter.replayed or ''}")
    if letter.status not in OPEN:
        raise Refused(
            f"letter {letter.letter_id} has status {letter.status!r}; "
            f"a replay takes {' or '.join(OPEN)}"
        )
    match letter.category:
        case Category.UNDECODABLE:
            raise Refused(
                f"letter {letter.letter_id} is undecodable: no worker can read its message, so it "
                "cannot be replayed. Enqueue the job anew"
            )
        case Category.VALIDATION_ERROR if not edited:
            raise Refused(
                f"letter {letter.letter_id} failed validation and would fail again; "
                "replay it with an edited payload"
            )
        case Category.EXPIRED if not forced:
            raise Refused(
                f"letter {letter.letter_id} expired: its sender did not want it run so late. "
                "Force the replay if it is wanted now"
            )
        case Category.VALIDATION_ERROR | Category.EXPIRED:
            return
    if not (letter.eligible or forced):
        raise Refused(
            f"letter {letter.letter_id} is marked as not replay-eligible; force it if you know why"
        )
