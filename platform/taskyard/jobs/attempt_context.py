"""What a running handler can read and report about its own attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from taskyard.errors import LeaseLost

__all__ = ["AttemptLink", "JobContext", "OnceGuard"]


class AttemptLink(Protocol):
    """The connection of an attempt to its record; the runner implements it."""

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
    """One attempt, seen from inside the handler.

    `attempt` counts from 1. `token` is the fencing token: it only grows, so a store that keeps the
    highest token it has seen can refuse a paused attempt that wakes up late. `deadline` is when the
    hard time limit ends the attempt, if the worker's pool has time limits. Threads and solo have
    none, so check it there. `credential` is what an operator's message was signed with.
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
        """Return whether to stop.

        An operator cancelled the job, or another attempt has the lease.
        """
        return self.link.cancelled() or self.link.lease_lost()

    def progress(self, fraction: float, note: str = "") -> None:
        """Report how far the attempt is: `fraction` from 0 to 1, `note` at most 200 characters."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must be from 0 to 1, got {fraction!r}")
        self.link.progress(fraction, note[:200])

    def once(self, session: object, step: str = "main") -> bool:
        """Return True the first time this job reaches `step`, in the caller's own transaction.

        `session` is a SQLAlchemy `Session` or `Connection` of the handler's database that holds
        the inbox table. When it returns False the effect was committed before: skip it. Raises
        `LeaseLost` if another attempt has taken over.
        """
        if self.link.lease_lost():
            raise LeaseLost(f"attempt {self.attempt} of job {self.job_id} lost its lease")
        if self._once is None:
            raise LeaseLost("context.once works only in a handler that a worker runs")
        return self._once(session, f"{self.job_id}:{self.epoch}", step)
