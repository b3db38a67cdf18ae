"""The class of an exception is shown where the failure's code does not name it."""

from __future__ import annotations

import json

import pytest

from taskyard.jobs import Category
from taskyard.jobs.attempt_outcomes import Failed, Failure, cause_summary
from taskyard.runner.stored_decision import death_of, encode_cause


@pytest.mark.parametrize(
    ("code", "summary"),
    [("exception", "KeyError: 'card'"), ("no_customer", "'card'"), ("timeout", "'card'")],
)
def test_a_stored_cause_has_the_summary_of_its_failure(code: str, summary: str) -> None:
    outcome = Failed(Failure(code, "KeyError", "'card'", "", ""), Category.NON_RETRYABLE)
    assert outcome.failure.summary == summary
    assert death_of(outcome)["message"] == summary
    assert cause_summary(json.loads(encode_cause(outcome))) == summary


def test_a_cause_without_a_class_is_its_message_and_an_absent_one_is_empty() -> None:
    assert cause_summary({"code": "exception", "message": "lost"}) == "lost"
    assert cause_summary({}) == ""
