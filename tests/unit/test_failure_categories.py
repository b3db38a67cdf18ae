"""Codes that are not retried: one table, whoever asks."""

from __future__ import annotations

import random

import pytest

from taskyard.jobs import Category, RetryPolicy
from taskyard.jobs.attempt_outcomes import Failed, Failure
from taskyard.jobs.failure_categories import NEVER_RETRIED, category_exhausted, category_unretried
from taskyard.jobs.retry_policy import DEFAULT_POLICY, Dead
from taskyard.runner.retry_decision import judge

RNG = random.Random(7)  # noqa: S311 - jitter is no secret


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("timeout", Category.TIMEOUT),
        ("internal_error", Category.INTERNAL_ERROR),
        ("validation_error", Category.VALIDATION_ERROR),
        ("result_invalid", Category.NON_RETRYABLE),
        ("result_too_large", Category.NON_RETRYABLE),
        ("anything else", Category.NON_RETRYABLE),
    ],
)
def test_a_code_that_is_not_retried_has_one_category(code: str, category: Category) -> None:
    assert category_unretried(code) is category


@pytest.mark.parametrize(
    ("code", "category"),
    [("timeout", Category.TIMEOUT), ("anything else", Category.RETRY_EXHAUSTED)],
)
def test_spent_retries_are_a_timeout_or_exhausted(code: str, category: Category) -> None:
    assert category_exhausted(code) is category


@pytest.mark.parametrize("code", NEVER_RETRIED)
def test_the_default_policy_gives_up_on_what_is_never_retried(code: str) -> None:
    assert DEFAULT_POLICY.judge(code, 1, rng=RNG) == Dead(NEVER_RETRIED[code])


@pytest.mark.parametrize("code", NEVER_RETRIED)
def test_no_policy_can_have_it_retried(code: str) -> None:
    eager = RetryPolicy(max_retries=9, retry_on_errors=(code,), escalate_on_failure="review")
    failure = Failure(code, "CodedError", "", "", "")
    assert judge(failure, 1, eager, RNG) == Failed(failure, NEVER_RETRIED[code], "review")
