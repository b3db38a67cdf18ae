"""The retry rules of an existing app: its tasks retry themselves, so Taskyard retries nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, Self

from taskyard.jobs import Catalogue, RetryPolicy
from taskyard.runner import Rules

__all__ = ["OwnRetries"]

_NONE: Final = RetryPolicy(max_retries=0)


class OwnRetries(Rules):
    """`self.retry` and `autoretry_for` decide; any other failure is final."""

    @classmethod
    def make(cls) -> Self:
        """Return rules without a catalogue."""
        return cls(Catalogue({}), random.SystemRandom())

    def policy(self, job_type: str, override: Mapping[str, object] | None) -> RetryPolicy:
        """Return a policy without retries."""
        return _NONE
