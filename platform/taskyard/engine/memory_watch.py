"""A bootstep of every worker: looks at the memory of the processes that run jobs."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from celery.worker import state as worker_state

from taskyard.engine.process_memory import ProcessMemory

__all__ = ["INTERVAL_S", "MemoryWatch"]

INTERVAL_S: Final = 0.5


class MemoryWatch(bootsteps.StartStopStep):  # type: ignore[misc]
    """So that a letter can say what a killed process held; the last look is at most 0.5 s old."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer."""
        memory = consumer.app.taskyard.memory
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, _look, (memory,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def _look(memory: ProcessMemory) -> None:
    running = tuple(worker_state.active_requests)
    memory.look({job.id: job.worker_pid for job in running if job.worker_pid})
