"""Reasons: what an auditor can use, and what says nothing."""

from __future__ import annotations

import pytest

from taskyard.control.reasons import UNSPECIFIED, check_reason
from taskyard.errors import Refused


@pytest.mark.parametrize(
    "reason",
    [
        "Infrastructure recovered after 2-hour outage",
        "User cancellation via support ticket #12345",
        "Decomposer bug causing misrouting (JIRA-4567)",
    ],
)
def test_the_runbooks_good_reasons_are_taken_as_they_are(reason: str) -> None:
    assert check_reason(reason) == reason


@pytest.mark.parametrize(
    "reason",
    ["", "Testing", "Fix it", "short", "aaaaaaaaaaaaaa", "1234567890123", "  this is a TEST!  "],
)
def test_a_throw_away_reason_is_refused_with_a_good_example(reason: str) -> None:
    with pytest.raises(Refused, match='for example: "Infrastructure recovered'):
        check_reason(reason)


def test_the_marker_of_compatibility_cannot_be_typed_as_a_reason() -> None:
    with pytest.raises(Refused, match="tells an auditor nothing"):
        check_reason(UNSPECIFIED, "compatible")


def test_a_call_without_a_reason_is_marked_where_compatibility_is_on() -> None:
    assert check_reason(None, "compatible") == "unspecified (compatibility)"


def test_a_call_without_a_reason_is_refused_where_reasons_are_strict() -> None:
    with pytest.raises(Refused, match="a reason is required"):
        check_reason(None, "strict")


def test_white_space_and_nul_do_not_make_a_reason_longer() -> None:
    with pytest.raises(Refused, match="at least 10 characters"):
        check_reason("a\x00\n\n\n      b c d")
