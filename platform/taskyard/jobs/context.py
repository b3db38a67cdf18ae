"""What a running handler may ask and say about its own attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from taskyard.errors import LeaseLost

__all__ = ["AttemptLink", "JobContext", "OnceGuard"]


class AttemptLink(Protocol):
    """The attempt's line to its record; the runner implements it."""

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

    `attempt` counts from 1. `token` is the fencing token: it only grows, so a store that keeps
    the highest token it has seen can refuse a paused attempt that wakes up late. `deadline` is
    when the hard time limit ends the attempt, where the worker's pool has time limits: threads and
    solo have none, so look at it there. `credential` is what an operator's message was signed with.
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
        """Whether to stop: an operator cancelled the job, or the lease went to another attempt."""
        return self.link.cancelled() or self.link.lease_lost()

    def progress(self, fraction: float, note: str = "") -> None:
        """Report how far the attempt is: `fraction` from 0 to 1, `note` at most 200 characters."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must lie between 0 and 1, got {fraction!r}")
        self.link.progress(fraction, note[:200])

    def once(self, session: object, step: str = "main") -> bool:
        """True the first time this job reaches `step`, in the caller's own transaction.

        `session` is a SQLAlchemy `Session` or `Connection` of the handler's database that holds
        the inbox table. When it returns False the effect was committed before: skip it. Raises
        `LeaseLost` if another attempt has taken over.
        """
        if self.link.lease_lost():
            raise LeaseLost(f"attempt {self.attempt} of job {self.job_id} lost its lease")
        if self._once is None:
            raise LeaseLost("context.once needs a worker; there is none around this call")
        return self._once(session, f"{self.job_id}:{self.epoch}", step)
