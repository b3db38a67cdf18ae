"""What a running handler can read and report about its own attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from taskyard.errors import LeaseLost

__all__ = ["AttemptLink", "JobContext", "OnceGuard"]


class AttemptLink(Protocol):
    """The connection of an attempt to its job's record; the runner implements this protocol."""

    def cancelled(self) -> bool:
        """Whether an operator asked this attempt to stop."""
        ...

    def lease_lost(self) -> bool:
        """Whether another attempt holds the job now."""
        ...

    def progress(self, fraction: float, note: str) -> None:
        """Write progress to the record."""
        ...


OnceGuard = Callable[[object, str, str], bool]


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of a job, as its handler sees the attempt.

    `attempt` counts from 1. `token` is the fencing token, which only grows: a store that keeps the
    highest token can refuse an attempt that was paused and continues late. `deadline` is when the
    hard time limit ends the attempt, if the worker's pool has time limits. The pools threads and
    solo have no time limits, so check the deadline there. `credential` is the credential with which
    an operator's message was signed.
    """

    job_id: str
    job_type: str
    attempt: int
    token: int
    epoch: int
    deadline: datetime | None
    link: AttemptLink
    credential: str | None = field(default=None, repr=False)
    _once: OnceGuard | None = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Return whether the handler must stop.

        It must stop after an operator cancelled the job, or after another attempt took the lease.
        """
        return self.link.cancelled() or self.link.lease_lost()

    def progress(self, fraction: float, note: str = "") -> None:
        """Report how far the attempt is: `fraction` from 0 to 1, `note` at most 200 characters."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must be from 0 to 1, got {fraction!r}")
        self.link.progress(fraction, note[:200])

    def once(self, session: object, step: str = "main") -> bool:
        """Note in the caller's transaction that this job does `step`; return True the first time.

        False means that an earlier attempt has committed the step: skip it. `session` is a
        SQLAlchemy `Session` or `Connection` of the handler's database, which holds the inbox table.
        Raises `LeaseLost` if another attempt has taken over.
        """
        if self.link.lease_lost():
            raise LeaseLost(f"attempt {self.attempt} of job {self.job_id} lost its lease")
        if self._once is None:
            raise LeaseLost("context.once works only in a handler that a worker runs")
        return self._once(session, f"{self.job_id}:{self.epoch}", step)
