"""Retry policies: what happens after a handler's failure, as a pure function.

Backoff: exponential is base x 2^(n-1), linear is base x n, immediate is 0, for the n-th retry
(n from 1), capped at `max_delay_ms` and always at seven days. Jitter is "equal": half of the delay
is fixed and half is random, so that a failing burst spreads and no retry comes at once
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Self, assert_never

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskyard.jobs.failure_categories import NEVER_RETRIED, category_exhausted, category_unretried
from taskyard.wire.letter_categories import Category

__all__ = [
    "DEFAULT_POLICY",
    "LONGEST_DELAY",
    "Backoff",
    "Category",
    "Dead",
    "Retry",
    "RetryDecision",
    "RetryPolicy",
]


# A longer wait was hardly configured on purpose: it is a doubled number or a broken header.
LONGEST_DELAY: Final = timedelta(days=7)
_LONGEST_MS: Final = LONGEST_DELAY / timedelta(milliseconds=1)


class Backoff(StrEnum):
    """How the wait before a retry grows with the number of retries."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, slots=True)
class Retry:
    """Run again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Dead:
    """The job fails for good, with this category."""

    category: Category


RetryDecision = Retry | Dead


class RetryPolicy(BaseModel):
    """The retry policy of one job type; the fields have the names of the YAML file.

    If `retry_on_errors` is given, only these codes are retried; a code in `no_retry_errors` is
    never retried. The codes are those of `taskyard.jobs.error_codes`. `max_retries` 0 means no
    retry. Delays are milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(default=3, ge=0, le=1000)
    backoff_strategy: Backoff = Backoff.EXPONENTIAL
    base_delay_ms: int = Field(default=1000, ge=0)
    max_delay_ms: int | None = Field(default=None, ge=0)
    retry_on_errors: tuple[str, ...] | None = None
    no_retry_errors: tuple[str, ...] = ()
    escalate_on_failure: str | None = None
    jitter: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_delay_ms is not None and self.max_delay_ms < self.base_delay_ms:
            msg = (
                f"max_delay_ms ({self.max_delay_ms}) is below base_delay_ms "
                f"({self.base_delay_ms}): raise max_delay_ms or lower base_delay_ms"
            )
            raise ValueError(msg)
        both = set(self.retry_on_errors or ()) & set(self.no_retry_errors)
        if both:
            msg = f"{', '.join(sorted(both))}: in retry_on_errors and in no_retry_errors; keep one"
            raise ValueError(msg)
        return self

    def retries(self, code: str) -> bool:
        """Return whether a failure with this error code is retried at all."""
        if code in self.no_retry_errors:
            return False
        return self.retry_on_errors is None or code in self.retry_on_errors

    def delay(self, retry: int, rng: random.Random) -> timedelta:
        """Return the wait before the `retry`-th retry (from 1)."""
        wait_ms: float
        match self.backoff_strategy:
            case Backoff.EXPONENTIAL:
                # The exponent is bounded: a thousand retries must not build a huge integer.
                wait_ms = self.base_delay_ms * 2 ** min(retry - 1, 40)
            case Backoff.LINEAR:
                wait_ms = self.base_delay_ms * retry
            case Backoff.IMMEDIATE:
                wait_ms = 0
            case never:
                assert_never(never)
        longest_ms = _LONGEST_MS if self.max_delay_ms is None else self.max_delay_ms
        wait_ms = min(wait_ms, longest_ms, _LONGEST_MS)
        if self.jitter:
            wait_ms = wait_ms / 2 + rng.uniform(0, wait_ms / 2)
        return timedelta(milliseconds=wait_ms)

    def judge(
        self,
        code: str,
        attempts: int,
        *,
        rng: random.Random,
        retry_after_s: float | None = None,
    ) -> RetryDecision:
        """Decide on failure number `attempts` (from 1) with the error `code`.

        For a job that fails for good, `taskyard.jobs.failure_categories` gives the category.
        `retry_after_s` (seconds) asks for a longer wait than the policy's, up to
        `LONGEST_DELAY`; a value that is not a number is ignored.
        """
        if not self.retries(code):
            return Dead(category_unretried(code))
        if attempts > self.max_retries:
            return Dead(category_exhausted(code))
        delay = self.delay(attempts, rng)
        if retry_after_s is not None and not math.isnan(retry_after_s):
            bounded_s = min(max(retry_after_s, 0.0), LONGEST_DELAY.total_seconds())
            delay = max(delay, timedelta(seconds=bounded_s))
        return Retry(delay)


DEFAULT_POLICY: Final = RetryPolicy(no_retry_errors=tuple(NEVER_RETRIED))
