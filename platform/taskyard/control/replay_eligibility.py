"""The pure rule that decides which dead letters may be replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from taskyard.errors import Refused
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN, LetterStatus
from taskyard.jobs.replay_by_category import NEEDS, Needs

__all__ = ["Candidate", "check_replayable"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The facts about a dead letter that decide whether it may be replayed.

    `replayed` says when and by whom the dead letter was replayed, if it was; `fanout` names the
    fanout exchange that carried the message.
    """

    letter_id: str
    status: LetterStatus
    category: Category
    eligible: bool
    replayed: str | None = None
    fanout: str | None = None


def check_replayable(letter: Candidate, *, edited: bool, forced: bool) -> None:
    """Raise `Refused` if the dead letter may not be replayed, with the reason and a remedy."""
    _check_open(letter)
    _check(
        letter.fanout is None,
        f"letter {letter.letter_id} is one copy of a message of the fanout exchange "
        f"{letter.fanout!r}: a replay would not reach the worker that this copy was for. "
        "Publish the task anew, to every worker",
    )
    match NEEDS[letter.category]:
        case Needs.A_NEW_JOB:
            raise Refused(
                f"letter {letter.letter_id} is {letter.category}: no worker can read its message, "
                "so it cannot be replayed. Enqueue the job anew"
            )
        case Needs.EDITED_PAYLOAD:
            _check(
                edited,
                f"letter {letter.letter_id} failed validation and a replay would fail again; "
                "replay it with an edited payload",
            )
        case Needs.FORCE:
            _check(
                forced,
                f"letter {letter.letter_id} expired: its sender set a deadline, which has passed. "
                f"To run it all the same, force the replay",
            )
        case Needs.NOTHING:
            # Any other letter with this mark was marked by hand, or by a newer version.
            _check(
                letter.eligible or forced,
                f"letter {letter.letter_id} is marked as not replay-eligible; "
                "to replay it all the same, force it",
            )
        case never:
            assert_never(never)


def _check_open(letter: Candidate) -> None:
    if letter.status is LetterStatus.REPLAYED:
        raise Refused(f"letter {letter.letter_id} was already replayed {letter.replayed or ''}")
    if letter.status not in OPEN:
        raise Refused(
            f"letter {letter.letter_id} has status {letter.status.value!r}; "
            f"a replay takes {' or '.join(OPEN)}"
        )


def _check(met: bool, refusal: str) -> None:
    if not met:
        raise Refused(refusal)
