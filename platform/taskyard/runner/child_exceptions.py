"""Exceptions with which the child reports to the main process; they can be pickled."""

from __future__ import annotations

from typing import Any, Final

from celery.exceptions import Ignore, Retry

__all__ = ["JobDeferred", "JobRetrying", "JobSkipped"]


class JobRetrying(Retry):  # type: ignore[misc]
    """Decided: publish the message again as `seq`, due at `due_us`, then acknowledge."""

    def __init__(self, seq: int, due_us: int, epoch: int, generation: int, cause: str) -> None:
        super().__init__(message=cause)
        self.seq, self.due_us, self.epoch, self.generation = seq, due_us, epoch, generation
        self.cause = cause

    def __reduce__(self) -> Any:
        """Pickle with the numbers, which Celery's own form would lose."""
        facts = (self.seq, self.due_us, self.epoch, self.generation, self.cause)
        return type(self), facts


class JobDeferred(Ignore):  # type: ignore[misc]
    """Not now: put the message into the delay store for `wait_us`, then acknowledge."""

    def __init__(self, wait_us: int, reason: str) -> None:
        super().__init__(wait_us, reason)
        self.wait_us, self.reason = wait_us, reason


class JobSkipped(Ignore):  # type: ignore[misc]
    """Nothing to do for this message: acknowledge it."""

    DONE: Final = "completed before"
    """How a reason begins if the job is completed and its result has expired."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class JobIdReused(Ignore):  # type: ignore[misc]
    """The id belongs to a job of another type.

    Publish the letter of this message, then acknowledge.
    """

    def __init__(self, job_type: str, state: str, epoch: int) -> None:
        super().__init__(job_type, state, epoch)
        self.job_type, self.state, self.epoch = job_type, state, epoch
