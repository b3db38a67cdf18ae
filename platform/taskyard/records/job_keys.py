"""The names of every job's Redis keys, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.switches import switches_key

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of a namespace's Redis keys.

    The result has Celery's own key, so that every Celery client can read it. In a namespace other
    than the default, this key is prefixed like all others.
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
        """The key with the number of events that were left out of the stream, by event."""
        return f"{self.namespace}:lifecycle:gaps"

    @property
    def switches(self) -> str:
        """The hash of pauses and kill switches."""
        return switches_key(self.namespace)

    @property
    def announced(self) -> str:
        """The workers that carried out signed broadcasts, by the time of their last one."""
        return f"{self.namespace}:workers:announced"

    def broadcast(self, nonce: str, worker: str) -> str:
        """The key that binds the nonce of a signed broadcast to its first call at a worker."""
        return f"{self.namespace}:broadcast:{nonce}:{worker}"

    def denied(self, kind: str) -> str:
        """The counts of denied broadcasts of one kind: by worker, and what the stream has."""
        return f"{self.namespace}:broadcasts:denied:{kind}"

    def command(self, request_id: str) -> str:
        """The key of a control command of Celery: which worker has carried it out, its outcome."""
        return f"{self.namespace}:command:{request_id}"

    @property
    def prefix(self) -> str:
        """The prefix of the keys of the broker, and of Celery's own keys."""
        return "" if self.namespace == "taskyard" else f"{self.namespace}:"

    def result(self, job_id: str) -> str:
        """Celery's result key; the channel of the same name announces the job's end."""
        return f"{self.prefix}celery-task-meta-{job_id}"

    def kept_result(self, job_id: str) -> str:
        """The key of the record's copy of an installed app's result.

        The app itself stores its result elsewhere.
        """
        return f"{self.namespace}:result:{job_id}"

    def script_keys(self, job_id: str) -> list[str]:
        """The KEYS of every record script: record, stream, gaps, result."""
        return [self.record(job_id), self.lifecycle, self.gaps, self.result(job_id)]
