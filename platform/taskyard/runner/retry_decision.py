"""Decide about a failed attempt by its retry policy: the job type's, or the message's own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from celery.exceptions import Reject
from pydantic import ValidationError

from taskyard.jobs import Catalogue, RetryPolicy
from taskyard.jobs.attempt_outcomes import Failed, Failure, Retrying
from taskyard.jobs.failure_categories import NEVER_RETRIED
from taskyard.jobs.retry_policy import DEFAULT_POLICY, Category, Dead, Retry

__all__ = ["Rules", "judge"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The retry policy of each job, from its type and from its message; `rng` spreads the waits."""

    catalogue: Catalogue
    rng: random.Random

    def policy(self, job_type: str, override: Mapping[str, object] | None) -> RetryPolicy:
        """Return the job type's policy with the fields that the message overrides.

        A policy in the message that is not valid is ignored.
        """
        base = self.catalogue[job_type].policy if job_type in self.catalogue else DEFAULT_POLICY
        if override is None:
            return base
        own = {name: value for name, value in override.items() if self._may_say(name, value)}
        try:
            return RetryPolicy.model_validate({**base.model_dump(exclude_unset=True), **own})
        except ValidationError:
            return base

    def _may_say(self, name: str, value: object) -> bool:
        """Return whether a message may override this field of the policy.

        A message may not choose a queue freely: its dead letter would go to any queue that
        it names.
        """
        if name != "escalate_on_failure" or value is None:
            return True
        return isinstance(value, str) and value in self.catalogue.review_queues


def judge(
    failure: Failure, attempts: int, policy: RetryPolicy, rng: random.Random
) -> Retrying | Failed:
    """Return the outcome of failure number `attempts` (1 is the first) under `policy`."""
    never = Category.REJECTED if failure.error_class == Reject.__name__ else None
    category = NEVER_RETRIED.get(failure.code, never)
    if category is not None:
        return Failed(failure, category, policy.escalate_on_failure)
    decision = policy.judge(failure.code, attempts, rng=rng, retry_after_s=failure.retry_after_s)
    match decision:
        case Retry(delay):
            return Retrying(failure, delay)
        case Dead(category):
            return Failed(failure, category, policy.escalate_on_failure)
