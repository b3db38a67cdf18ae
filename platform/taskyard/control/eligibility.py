"""Which letters may be replayed, as a pure rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from taskyard.errors import Refused
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN, LetterStatus
from taskyard.jobs.replay_rules import NEEDS, Needs

__all__ = ["Candidate", "check_replayable"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rule looks at.

    `replayed` says when and by whom, if ever; `fanout` which fanout exchange had the message.
    """

    letter_id: str
    status: LetterStatus
    category: Category
    eligible: bool
    replayed: str | None = None
    fanout: str | None = None


def check_replayable(letter: Candidate, *, edited: bool, forced: bool) -> None:
    """Raise `Refused` with the reason and the way out, if there is one."""
    _check_open(letter)
    _check(
        letter.fanout is None,
        f"letter {letter.letter_id} is one copy of a message of the fanout exchange "
        f"{letter.fanout!r}: a replay would not reach the worker that it was meant for. "
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
                f"letter {letter.letter_id} failed validation and would fail again; "
                "replay it with an edited payload",
            )
        case Needs.FORCE:
            _check(
                forced,
                f"letter {letter.letter_id} expired: its sender did not want it run so late. "
                "Force the replay if it is wanted now",
            )
        case Needs.NOTHING:
            # What is marked all the same was marked by hand, or by a version that knows more.
            _check(
                letter.eligible or forced,
                f"letter {letter.letter_id} is marked as not replay-eligible; "
                "force it if you know why",
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
