"""Read the memory of the processes that run jobs: a bootstep of every worker."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps

from taskyard.engine.worker_context import WorkerContext

__all__ = ["INTERVAL_S", "MemoryWatch"]

INTERVAL_S: Final = 0.5


class MemoryWatch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Reads the memory of job processes at most 0.5 s apart.

    If a process is killed, its dead letter can then say how much memory it had.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer that reads memory."""
        context = consumer.app.taskyard
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, _look, (context,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer that reads memory."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def _look(context: WorkerContext) -> None:
    if context.ports is not None:
        context.memory.look(context.ports.work.processes_of_jobs())
