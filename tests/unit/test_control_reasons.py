"""Reasons: what an auditor can use, and what says nothing."""

from __future__ import annotations

import pytest

from taskyard.control.operator_reasons import UNSPECIFIED, check_reason
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


def test_a_token_that_was_pasted_into_a_reason_is_masked() -> None:
    said = check_reason("Ada's token leaked: ty_0123456789ab_" + "s3cret" * 7)
    assert said == "Ada's token leaked: ty_0123456789ab_[redacted]"
    assert check_reason(said) == said


def test_the_marker_of_compatibility_cannot_be_typed_as_a_reason() -> None:
    with pytest.raises(Refused, match="is too short or too general"):
        check_reason(UNSPECIFIED, "compatible")


def test_a_call_without_a_reason_is_marked_where_compatibility_is_on() -> None:
    assert check_reason(None, "compatible") == "unspecified (compatibility)"


def test_a_call_without_a_reason_is_refused_where_reasons_are_strict() -> None:
    with pytest.raises(Refused, match="a reason is required"):
        check_reason(None, "strict")


def test_white_space_does_not_make_a_reason_longer() -> None:
    with pytest.raises(Refused, match="at least 10 characters"):
        check_reason("a\t\n\n\n      b c d")


@pytest.mark.parametrize(
    ("hidden", "name"),
    [
        ("\x00", r"U\+0000 \(a control character\)"),
        ("\x1b[2J", r"U\+001B \(a control character\)"),
        ("\r", r"U\+000D"),
        ("\x9b", r"U\+009B"),
        ("\u202e", r"U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"),
        ("\u2066", r"U\+2066 \(LEFT-TO-RIGHT ISOLATE\)"),
        ("\u200b", r"U\+200B \(ZERO WIDTH SPACE\)"),
        ("\ud800", r"U\+D800"),
    ],
)
def test_what_hides_or_reorders_text_is_refused_by_name_and_place(hidden: str, name: str) -> None:
    with pytest.raises(Refused, match=f"character 7 is {name}.*Remove it"):
        check_reason(f"Outage{hidden} over, ticket 12345")


@pytest.mark.parametrize(
    "reason",
    [
        "Störung behoben, Ticket 12345",
        "\u0645\u06cc\u200c\u0634\u0648\u062f, ticket 12345",  # Persian, with a joiner
        "\u5168\u7cfb\u7d71\u304c\u5fa9\u65e7\u3057\u307e\u3057\u305f, ticket 12345",
    ],
)
def test_every_language_is_plain_text(reason: str) -> None:
    assert check_reason(reason) == reason


def test_a_reason_of_several_lines_is_kept_on_one() -> None:
    assert check_reason("Outage over,\r\n\tticket\n12345") == "Outage over, ticket 12345"


def test_a_reason_longer_than_2000_characters_is_refused_with_its_length() -> None:
    with pytest.raises(Refused, match="at most 2000 characters, got 2001"):
        check_reason("ab cd efg" + "h" * 1992)
