"""Exceptions by which the child process reports to the worker's main process.

All of them can be pickled.
"""

from __future__ import annotations

from typing import Any, Final

from celery.exceptions import Ignore, Retry

from taskyard.jobs.states import State

__all__ = [
    "JobDeferred",
    "JobForwarded",
    "JobIdReused",
    "JobRetrying",
    "JobSkipped",
    "JobSwitchedOff",
]


class JobRetrying(Retry):  # type: ignore[misc]
    """Report a decided retry.

    The main process publishes the message again as `seq`, due at `due_us`, then acknowledges
    this one.
    """

    def __init__(self, seq: int, due_us: int, epoch: int, generation: int, cause: str) -> None:
        super().__init__(message=cause)
        self.seq, self.due_us, self.epoch, self.generation = seq, due_us, epoch, generation
        self.cause = cause

    def __reduce__(self) -> Any:
        """Pickle the exception with its numbers, which Celery's own form would drop."""
        facts = (self.seq, self.due_us, self.epoch, self.generation, self.cause)
        return type(self), facts


class JobDeferred(Ignore):  # type: ignore[misc]
    """Report that the job cannot run yet.

    The main process puts the message into the delay store for `wait_us`, then acknowledges this
    one.
    """

    def __init__(self, wait_us: int, reason: str) -> None:
        super().__init__(wait_us, reason)
        self.wait_us, self.reason = wait_us, reason


class JobSwitchedOff(Ignore):  # type: ignore[misc]
    """Report that a pause or kill switch keeps the job from running.

    The main process puts the message back into its queue, or into the delay store. `field` names
    the switch, `until_us` is its end or 0, `mode` what it does.
    """

    def __init__(self, field: str, until_us: int, mode: str) -> None:
        super().__init__(field, until_us, mode)
        self.field, self.until_us, self.mode = field, until_us, mode


class JobSkipped(Ignore):  # type: ignore[misc]
    """Report that this message needs no run.

    The main process acknowledges it. `ended` is the state in which an operator has ended the job;
    Celery must hear of that, once for each delivery. Of an attempt whose job was completed
    meanwhile it is `completed`: the message returns to its queue, and its next delivery continues
    the job's chain with the stored result. Otherwise it is None.
    """

    DONE: Final = "completed before"
    """The first words of the reason if the job is completed and its result has expired."""

    def __init__(self, reason: str, ended: State | None = None) -> None:
        super().__init__(reason)
        self.reason, self.ended = reason, ended

    def __reduce__(self) -> Any:
        """Pickle the exception with the state."""
        return type(self), (self.reason, self.ended)


class JobForwarded(Ignore):  # type: ignore[misc]
    """Report that an operator has moved the job to `queue`.

    The main process publishes the message there at the position that follows, then acknowledges
    this one.
    """

    def __init__(self, queue: str, epoch: int, generation: int, seq: int) -> None:
        super().__init__(queue, epoch, generation, seq)
        self.queue, self.epoch, self.generation, self.seq = queue, epoch, generation, seq


class JobIdReused(Ignore):  # type: ignore[misc]
    """Report that the message's id belongs to a job of another type.

    The main process publishes a dead letter of this message, then acknowledges it.
    """

    def __init__(self, job_type: str, state: str, epoch: int) -> None:
        super().__init__(job_type, state, epoch)
        self.job_type, self.state, self.epoch = job_type, state, epoch
