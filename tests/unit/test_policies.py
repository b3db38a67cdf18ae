"""Retry policies: growth, bounds, jitter, lists, and the operators' own three policies."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskyard.jobs.catalogue import Catalogue
from taskyard.jobs.retry_policy import (
    DEFAULT_POLICY,
    LONGEST_DELAY,
    Backoff,
    Category,
    Dead,
    Retry,
    RetryPolicy,
)

# The runbook's policies, word for word.
RUNBOOK: dict[str, dict[str, Any]] = {
    "plan_generation": {
        "max_retries": 3,
        "backoff_strategy": "exponential",
        "base_delay_ms": 1000,
        "max_delay_ms": 10000,
        "retry_on_errors": ["timeout", "rate_limit", "temporary_failure"],
    },
    "test_execution": {
        "max_retries": 2,
        "backoff_strategy": "linear",
        "base_delay_ms": 5000,
        "retry_on_errors": ["browser_crash", "network_timeout"],
        "no_retry_errors": ["element_not_found", "assertion_failure"],
    },
    "element_healing": {
        "max_retries": 1,
        "backoff_strategy": "immediate",
        "retry_on_errors": ["dom_analysis_timeout"],
        "escalate_on_failure": "manual_review_queue",
    },
}

SEEDED = random.Random(7)  # noqa: S311 - jitter is no secret
CODES = st.sampled_from(["timeout", "rate_limit", "validation_error", "internal_error", "x", "y"])
POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000),
    backoff_strategy=st.sampled_from(Backoff),
    base_delay_ms=st.integers(0, 10**30),
    jitter=st.booleans(),
)
RETRIES = st.integers(1, 1000)
RANDOM = st.randoms(use_true_random=False)


def milliseconds(delay: timedelta) -> float:
    return delay / timedelta(milliseconds=1)


def plain(strategy: Backoff, base_delay_ms: int, max_delay_ms: int | None = None) -> RetryPolicy:
    return RetryPolicy(
        backoff_strategy=strategy,
        base_delay_ms=base_delay_ms,
        max_delay_ms=max_delay_ms,
        jitter=False,
    )


@given(POLICIES, RETRIES, RANDOM)
def test_a_delay_is_never_negative_and_never_endless(
    policy: RetryPolicy, retry: int, rng: random.Random
) -> None:
    assert timedelta() <= policy.delay(retry, rng) <= LONGEST_DELAY


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(Backoff), RETRIES, RANDOM)
def test_a_delay_is_never_above_the_maximum(
    base: int, more: int, strategy: Backoff, retry: int, rng: random.Random
) -> None:
    policy = RetryPolicy(
        backoff_strategy=strategy, base_delay_ms=base, max_delay_ms=base + more, jitter=True
    )
    assert policy.delay(retry, rng) <= timedelta(milliseconds=base + more)


@given(POLICIES, RETRIES, RANDOM)
def test_jitter_takes_at_most_half_of_the_delay(
    policy: RetryPolicy, retry: int, rng: random.Random
) -> None:
    full = policy.model_copy(update={"jitter": False}).delay(retry, rng)
    jittered = policy.model_copy(update={"jitter": True}).delay(retry, rng)
    assert full / 2 <= jittered <= full


def test_jitter_spreads_a_burst() -> None:
    policy = RetryPolicy(base_delay_ms=10_000)
    assert len({policy.delay(1, SEEDED) for _ in range(100)}) > 90


@given(st.integers(0, 10_000), st.integers(1, 12), RANDOM)
def test_exponential_backoff_doubles(base: int, retry: int, rng: random.Random) -> None:
    policy = plain(Backoff.EXPONENTIAL, base)
    assert milliseconds(policy.delay(1, rng)) == base
    assert policy.delay(retry + 1, rng) == 2 * policy.delay(retry, rng)


@given(st.integers(0, 10_000), st.integers(1, 1000), RANDOM)
def test_linear_backoff_grows_by_its_base(base: int, retry: int, rng: random.Random) -> None:
    policy = plain(Backoff.LINEAR, base)
    grown = policy.delay(retry + 1, rng) - policy.delay(retry, rng)
    assert milliseconds(grown) == base


@given(st.integers(0, 10**9), RETRIES, RANDOM)
def test_an_immediate_retry_does_not_wait(base: int, retry: int, rng: random.Random) -> None:
    assert plain(Backoff.IMMEDIATE, base).delay(retry, rng) == timedelta()


@given(POLICIES, RETRIES, RANDOM)
def test_later_retries_never_wait_less(policy: RetryPolicy, retry: int, rng: random.Random) -> None:
    steady = policy.model_copy(update={"jitter": False})
    assert steady.delay(retry + 1, rng) >= steady.delay(retry, rng)


@given(st.lists(CODES, unique=True), CODES)
def test_a_denied_code_is_never_retried(denied: list[str], code: str) -> None:
    policy = RetryPolicy(no_retry_errors=tuple(denied))
    assert policy.retries(code) is (code not in denied)


@given(st.lists(CODES, unique=True), CODES)
def test_an_allow_list_is_exhaustive(allowed: list[str], code: str) -> None:
    policy = RetryPolicy(retry_on_errors=tuple(allowed))
    assert policy.retries(code) is (code in allowed)


@given(st.sets(CODES, min_size=1), st.sets(CODES, min_size=1))
def test_a_code_cannot_be_allowed_and_denied(allowed: set[str], denied: set[str]) -> None:
    assume(allowed & denied)
    with pytest.raises(ValidationError, match=r"in retry_on_errors and in no_retry_errors; keep"):
        RetryPolicy(retry_on_errors=tuple(allowed), no_retry_errors=tuple(denied))


def test_a_maximum_below_the_base_is_refused_with_both_numbers() -> None:
    words = r"\(5\) is below base_delay_ms \(10\): raise max_delay_ms or lower base_delay_ms"
    with pytest.raises(ValidationError, match=words):
        RetryPolicy(base_delay_ms=10, max_delay_ms=5)


@given(POLICIES, CODES, st.integers(1, 2000), RANDOM)
def test_the_verdict_follows_lists_and_count(
    policy: RetryPolicy, code: str, attempts: int, rng: random.Random
) -> None:
    verdict = policy.judge(code, attempts, rng=rng)
    if attempts <= policy.max_retries:
        assert isinstance(verdict, Retry)
    else:
        spent = Category.TIMEOUT if code == "timeout" else Category.RETRY_EXHAUSTED
        assert verdict == Dead(spent)


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("timeout", Category.TIMEOUT),
        ("validation_error", Category.VALIDATION_ERROR),
        ("internal_error", Category.INTERNAL_ERROR),
        ("assertion_failure", Category.NON_RETRYABLE),
    ],
)
def test_a_code_that_is_not_retried_dies_at_once_in_its_own_category(
    code: str, category: Category
) -> None:
    policy = RetryPolicy(no_retry_errors=(code,))
    assert policy.judge(code, 1, rng=SEEDED) == Dead(category)


def test_no_retries_means_none() -> None:
    policy = RetryPolicy(max_retries=0)
    assert policy.judge("x", 1, rng=SEEDED) == Dead(Category.RETRY_EXHAUSTED)


def test_the_default_policy_does_not_repeat_what_cannot_succeed() -> None:
    for code in ("validation_error", "result_invalid", "result_too_large"):
        assert isinstance(DEFAULT_POLICY.judge(code, 1, rng=SEEDED), Dead)
    assert isinstance(DEFAULT_POLICY.judge("exception", 3, rng=SEEDED), Retry)


@given(st.floats(allow_nan=True, allow_infinity=True), POLICIES, RANDOM)
def test_a_wish_for_a_longer_wait_lengthens_it_within_reason(
    wish: float, policy: RetryPolicy, rng: random.Random
) -> None:
    steady = policy.model_copy(update={"jitter": False, "max_retries": 1})
    verdict = steady.judge("x", 1, rng=rng, retry_after_s=wish)
    assert isinstance(verdict, Retry)
    own = steady.delay(1, rng)
    assert own <= verdict.delay <= LONGEST_DELAY
    if not math.isnan(wish) and own.total_seconds() < wish < LONGEST_DELAY.total_seconds():
        assert verdict.delay == timedelta(seconds=wish)


@pytest.mark.parametrize("name", RUNBOOK)
def test_the_built_in_policies_are_those_of_the_runbook(name: str) -> None:
    policy = Catalogue.load(built_in=True)[name].policy
    written = policy.model_dump(mode="json", include=set(RUNBOOK[name]))
    assert written == RUNBOOK[name]
    assert policy.jitter, "jitter is on by default"
    unsaid = {"no_retry_errors", "escalate_on_failure"} - set(RUNBOOK[name])
    assert all(not getattr(policy, field) for field in unsaid)


@pytest.mark.parametrize(
    ("name", "code", "waits_ms"),
    [
        ("plan_generation", "rate_limit", [1000, 2000, 4000]),
        ("test_execution", "browser_crash", [5000, 10000]),
        ("element_healing", "dom_analysis_timeout", [0]),
    ],
)
def test_the_runbooks_policies_wait_and_give_up_as_written(
    name: str, code: str, waits_ms: list[int]
) -> None:
    policy = Catalogue.load(built_in=True)[name].policy.model_copy(update={"jitter": False})
    for attempts, wait_ms in enumerate(waits_ms, start=1):
        assert policy.judge(code, attempts, rng=SEEDED) == Retry(timedelta(milliseconds=wait_ms))
    spent = policy.judge(code, len(waits_ms) + 1, rng=SEEDED)
    assert spent == Dead(Category.RETRY_EXHAUSTED)
    assert policy.judge("no such code", 1, rng=SEEDED) == Dead(Category.NON_RETRYABLE)


def test_the_runbooks_plan_policy_never_waits_over_ten_seconds() -> None:
    policy = Catalogue.load(built_in=True)["plan_generation"].policy.model_copy(
        update={"jitter": False}
    )
    assert policy.delay(5, SEEDED) == timedelta(seconds=10)
