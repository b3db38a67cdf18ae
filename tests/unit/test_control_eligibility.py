"""Which letters may be replayed: the whole table, with and without an edit and force."""

from __future__ import annotations

import pytest

from taskyard.control.replay_eligibility import Candidate, check_replayable
from taskyard.errors import Refused
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN, LetterStatus
from taskyard.jobs.replay_by_category import NEEDS, Needs, replay_eligible

SETTLED = [status for status in LetterStatus if status not in OPEN]
REFUSALS = {
    Needs.NOTHING: "marked as not replay-eligible; to replay it all the same, force it",
    Needs.EDITED_PAYLOAD: "replay it with an edited payload",
    Needs.FORCE: "To run it all the same, force the replay",
    Needs.A_NEW_JOB: "is undecodable: no worker can read its message",
}


def candidate(
    category: Category = Category.TIMEOUT,
    status: LetterStatus = LetterStatus.PENDING,
    *,
    eligible: bool | None = None,
    replayed: str | None = None,
) -> Candidate:
    marked = replay_eligible(category) if eligible is None else eligible
    return Candidate("ab12", status, category, marked, replayed)


def granted(needed: Needs, *, marked: bool, edited: bool, forced: bool) -> bool:
    """The rule once more, in other words."""
    match needed:
        case Needs.NOTHING:
            return marked or forced
        case Needs.EDITED_PAYLOAD:
            return edited
        case Needs.FORCE:
            return forced
        case Needs.A_NEW_JOB:
            return False


@pytest.mark.parametrize("status", OPEN)
@pytest.mark.parametrize("category", Category)
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("edited", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_an_open_letter_is_replayed_if_what_its_category_needs_is_there(
    status: LetterStatus, category: Category, marked: bool, edited: bool, forced: bool
) -> None:
    letter, needed = candidate(category, status, eligible=marked), NEEDS[category]
    if granted(needed, marked=marked, edited=edited, forced=forced):
        check_replayable(letter, edited=edited, forced=forced)
        return
    with pytest.raises(Refused, match=REFUSALS[needed]):
        check_replayable(letter, edited=edited, forced=forced)


@pytest.mark.parametrize("status", SETTLED)
@pytest.mark.parametrize("category", Category)
def test_a_letter_that_is_not_open_is_never_replayed(
    category: Category, status: LetterStatus
) -> None:
    with pytest.raises(Refused, match=f"has status {status.value!r}|was already replayed"):
        check_replayable(candidate(category, status), edited=True, forced=True)


def test_the_refusal_of_a_settled_letter_says_which_ones_a_replay_takes() -> None:
    letter = candidate(status=LetterStatus.DELETED)
    with pytest.raises(Refused, match=r"has status 'deleted'; a replay takes pending or manual_"):
        check_replayable(letter, edited=True, forced=True)


def test_a_second_replay_says_when_and_by_whom_the_first_was() -> None:
    letter = candidate(
        status=LetterStatus.REPLAYED, replayed="at 2026-01-02 03:04:05 UTC by ops@example.com"
    )
    with pytest.raises(Refused, match="already replayed at 2026-01-02 03:04:05 UTC by ops@"):
        check_replayable(letter, edited=False, forced=True)


@pytest.mark.parametrize("category", Category)
@pytest.mark.parametrize("forced", [True, False])
def test_a_copy_of_a_fanout_exchanges_message_is_never_replayed(
    category: Category, forced: bool
) -> None:
    copy = Candidate("ab12", LetterStatus.PENDING, category, eligible=False, fanout="everywhere")
    with pytest.raises(Refused, match=r"the fanout exchange 'everywhere'.*Publish the task anew"):
        check_replayable(copy, edited=True, forced=forced)
