"""Faults that a test requests for later attempts: the death of a process or of a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from taskyard.jobs.handler_registry import Handler

__all__ = ["Fault", "Faults", "OvertimeKill", "ProcessKilled", "WorkerKilled"]


class ProcessKilled(BaseException):
    """Raised to simulate that the attempt's process is dead.

    No code in the attempt can catch it, decide or clean up. A handler under test may raise it
    too.
    """


class OvertimeKill(ProcessKilled):
    """Raised to simulate that the attempt reached its hard time limit of `limit_s` seconds."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(f"hard time limit ({limit_s:g} s)")


class WorkerKilled(ProcessKilled):
    """Raised to simulate that the whole worker is dead.

    Then no process of the worker writes to the record either.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """One death that a test requested.

    With `job_id` None it ends the next attempt, of whichever job.
    """

    job_id: str | None = None
    after_handler: bool = False
    whole_worker: bool = False
    before_begin: bool = False

    def kill(self) -> None:
        """End the process as the test requested."""
        kind = WorkerKilled if self.whole_worker else ProcessKilled
        raise kind("signal 9 (SIGKILL)")


@dataclass
class Faults:
    """The deaths of processes and workers that a test requested, in order."""

    coming: list[Fault] = field(default_factory=list)

    def bind(self, handler: Handler, job_id: str) -> Handler:
        """Return `handler` in a form that raises the requested fault when it is called."""
        wrapped = self._async(handler, job_id) if handler.is_async else self._sync(handler, job_id)
        return replace(handler, function=wrapped)

    def kill_before_begin(self, job_id: str) -> None:
        """End the worker that has just received this job's message, if the test requested that."""
        fault = self._take(job_id, before_begin=True)
        if fault is not None:
            raise WorkerKilled

    def _take(self, job_id: str, *, before_begin: bool = False) -> Fault | None:
        for fault in self.coming:
            if fault.job_id in (None, job_id) and fault.before_begin is before_begin:
                self.coming.remove(fault)
                return fault
        return None

    def _sync(self, handler: Handler, job_id: str) -> Callable[..., Any]:
        def attempt(*arguments: Any) -> Any:
            fault = self._take(job_id)
            if fault is not None and not fault.after_handler:
                fault.kill()
            result = handler.function(*arguments)
            if fault is not None:
                fault.kill()
            return result

        return attempt

    def _async(self, handler: Handler, job_id: str) -> Callable[..., Awaitable[Any]]:
        async def attempt(*arguments: Any) -> Any:
            fault = self._take(job_id)
            if fault is not None and not fault.after_handler:
                fault.kill()
            result = await handler.function(*arguments)
            if fault is not None:
                fault.kill()
            return result

        return attempt
