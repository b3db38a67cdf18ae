"""What a protected task's child tells the main process, beyond the runner's own signals."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Retry

from taskyard.runner import JobRetrying

__all__ = ["TaskRetrying"]


class TaskRetrying(JobRetrying):
    """A decided retry that still says what Celery's own `Retry` said: the exception and when."""

    def __init__(
        self,
        seq: int,
        due_us: int,
        epoch: int,
        generation: int,
        cause: str,
        exc: BaseException | None = None,
        when: Any = None,
    ) -> None:
        super().__init__(seq, due_us, epoch, generation, cause)
        Retry.__init__(self, None, exc, when)

    def __reduce__(self) -> Any:
        """With everything, also across processes."""
        facts = (self.seq, self.due_us, self.epoch, self.generation, self.cause)
        return type(self), (*facts, self.exc, self.when)
