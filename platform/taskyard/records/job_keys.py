"""The names of every job's Redis keys, in one place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one namespace.

    The result is under Celery's own key, so that every Celery client reads it; in a namespace
    other than the default it is prefixed like everything else.
    """

    namespace: str

    def record(self, job_id: str) -> str:
        """The job's record, a hash."""
        return f"{self.namespace}:job:{job_id}"

    @property
    def lifecycle(self) -> str:
        """The stream of all events."""
        return f"{self.namespace}:lifecycle"

    @property
    def gaps(self) -> str:
        """The counts of events left out of the stream, by event."""
        return f"{self.namespace}:lifecycle:gaps"

    @property
    def prefix(self) -> str:
        """The prefix of the broker's and Celery's own keys."""
        return "" if self.namespace == "taskyard" else f"{self.namespace}:"

    def result(self, job_id: str) -> str:
        """Celery's result key; the channel of the same name announces the job's end."""
        return f"{self.prefix}celery-task-meta-{job_id}"

    def kept_result(self, job_id: str) -> str:
        """The record's copy of the result of an installed app's job.

        The app stores its own elsewhere.
        """
        return f"{self.namespace}:result:{job_id}"

    def script_keys(self, job_id: str) -> list[str]:
        """The KEYS of every record script: record, stream, gaps, result."""
        return [self.record(job_id), self.lifecycle, self.gaps, self.result(job_id)]
