"""The retry rules for tasks of an existing app: Taskyard itself retries nothing.

The tasks decide by Celery's own means.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, Self

from taskyard.jobs import Catalogue, RetryPolicy
from taskyard.runner import Rules

__all__ = ["OwnRetries"]

_NONE: Final = RetryPolicy(max_retries=0)


class OwnRetries(Rules):
    """Retry rules that leave every retry to the task.

    `self.retry` and `autoretry_for` decide; Taskyard takes any other failure as final.
    """

    @classmethod
    def make(cls) -> Self:
        """Return retry rules that need no catalogue of job types."""
        return cls(Catalogue({}), random.SystemRandom())

    def policy(self, job_type: str, override: Mapping[str, object] | None) -> RetryPolicy:
        """Return a retry policy without retries."""
        return _NONE
