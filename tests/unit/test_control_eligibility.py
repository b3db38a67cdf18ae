"""Which letters may be replayed."""

from __future__ import annotations

import pytest

from taskyard.control.eligibility import Candidate, check_replayable
from taskyard.errors import Refused
from taskyard.jobs import Category


def candidate(category: str = "timeout", status: str = "pending", **changes: object) -> Candidate:
    fields = {"letter_id": "ab12", "status": status, "category": category, "eligible": True}
    return Candidate(**fields | changes)  # type: ignore[arg-type] # the fields' own types


@pytest.mark.parametrize("status", ["pending", "manual_review"])
@pytest.mark.parametrize(
    "category", sorted(set(Category) - {"undecodable", "validation_error", "expired"})
)
def test_an_open_letter_of_an_ordinary_category_may_be_replayed(status: str, category: str) -> None:
    check_replayable(candidate(category, status), edited=False, forced=False)


@pytest.mark.parametrize("status", ["retry_scheduled", "completed", "cancelled", "deleted"])
def test_a_letter_that_is_not_open_may_not(status: str) -> None:
    with pytest.raises(Refused, match=f"has status '{status}'; a replay takes pending"):
        check_replayable(candidate(status=status), edited=True, forced=True)


def test_a_second_replay_says_when_and_by_whom_the_first_was() -> None:
    letter = candidate(status="replayed", replayed="at 2026-01-02 03:04:05 UTC by ops@example.com")
    with pytest.raises(Refused, match="already replayed at 2026-01-02 03:04:05 UTC by ops@"):
        check_replayable(letter, edited=False, forced=True)


@pytest.mark.parametrize(("edited", "forced"), [(False, False), (True, False), (True, True)])
def test_an_undecodable_message_is_never_replayed(edited: bool, forced: bool) -> None:
    with pytest.raises(Refused, match="undecodable"):
        check_replayable(candidate("undecodable", eligible=False), edited=edited, forced=forced)


def test_a_validation_error_needs_an_edited_payload_and_no_force_replaces_it() -> None:
    letter = candidate("validation_error", eligible=False)
    with pytest.raises(Refused, match="edited payload"):
        check_replayable(letter, edited=False, forced=True)
    check_replayable(letter, edited=True, forced=False)


def test_an_expired_letter_needs_force() -> None:
    letter = candidate("expired", eligible=False)
    with pytest.raises(Refused, match="expired"):
        check_replayable(letter, edited=True, forced=False)
    check_replayable(letter, edited=False, forced=True)


def test_a_letter_that_is_marked_as_not_eligible_needs_force() -> None:
    letter = candidate("timeout", eligible=False)
    with pytest.raises(Refused, match="not replay-eligible"):
        check_replayable(letter, edited=True, forced=False)
    check_replayable(letter, edited=False, forced=True)
