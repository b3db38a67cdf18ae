"""Where an installed app's records keep results: never under Celery's keys, which are the app's."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.records import Keys

__all__ = ["AppKeys"]


@dataclass(frozen=True, slots=True)
class AppKeys(Keys):
    """As `Keys`, with results in the namespace."""

    def result(self, job_id: str) -> str:
        """What the record keeps for a continuation that must be repeated."""
        return self.kept_result(job_id)
