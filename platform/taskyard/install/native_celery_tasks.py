"""Celery's own tasks on a worker of job types, protected as those of an installed app."""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any

from celery import states

from taskyard.backend.record_backend import DECIDED
from taskyard.broker import ParkingPublisher
from taskyard.deadletters import LetterBox
from taskyard.engine.lease_releases import Releases
from taskyard.engine.pool_process_memory import ProcessMemory
from taskyard.engine.ports import WorkerPorts
from taskyard.engine.revoked_stamps import RevokedStamps
from taskyard.engine.worker_context import WorkerContext
from taskyard.install.adopt_task import protect
from taskyard.install.celery_tasks import CELERY_TASKS
from taskyard.install.modes import Mode
from taskyard.install.retry_rules import OwnRetries
from taskyard.install.task_attempt_pipeline import TaskRunner
from taskyard.records import Records
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["protect_celery_tasks"]


def protect_celery_tasks(app: Any, yard: WorkerContext) -> None:
    """Make each of Celery's own tasks run as one recorded job, with a dead letter if it fails."""
    app.finalize()
    own = CeleryTasksContext(yard)
    for name in CELERY_TASKS:
        protect(app.tasks[name], own)


class CeleryTasksContext(WorkerContext):
    """The context that Celery's own tasks need; connections are those of the worker."""

    def __init__(self, worker: WorkerContext) -> None:
        super().__init__(worker.settings, worker.catalogue)
        self._worker = worker
        self.rules = OwnRetries(worker.catalogue, random.SystemRandom())

    @property
    def records(self) -> Records:
        """Return the worker's job records."""
        return self._worker.records

    @cached_property
    def task_runner(self) -> TaskRunner:
        """Return the runner for a task that knows nothing of Taskyard, in a child process."""
        return _Runner(self.steps)

    def mode(self, name: str) -> Mode:
        """Return the mode of every one of Celery's own tasks on such a worker."""
        return Mode.PROTECT

    @property
    def releases(self) -> Releases:
        """Return the leases that the worker must release."""
        return self._worker.releases

    @property
    def ports(self) -> WorkerPorts | None:  # type: ignore[override]  # the consumer sets the worker's
        """Return the worker's ports."""
        return self._worker.ports

    @property
    def backoff(self) -> FailureBackoff:
        """Return the worker's lasting failures."""
        return self._worker.backoff

    @property
    def revoked_stamps(self) -> RevokedStamps:
        """Return the stamps that a control command has revoked at the worker."""
        return self._worker.revoked_stamps

    @property
    def memory(self) -> ProcessMemory:
        """Return the memory of the worker's processes."""
        return self._worker.memory

    @property
    def publisher(self) -> ParkingPublisher:
        """Return the worker's publisher of retries and deferred messages."""
        return self._worker.publisher

    @property
    def letters(self) -> LetterBox:
        """Return the worker's publisher of dead letters."""
        return self._worker.letters


class _Runner(TaskRunner):
    """Runs Celery's own tasks and stores results as for job types.

    The results are in Celery's form, stored in the step that decides the outcome.
    """

    def _stored(self, task: Any, value: Any) -> bytes:
        backend, request = task.backend, task.request
        result = backend.encode_result(value, states.SUCCESS)
        meta = backend._get_result_meta(result, states.SUCCESS, None, request)
        stored = backend.encode({**meta, "task_id": request.id})
        setattr(request, DECIDED, True)
        return stored.encode() if isinstance(stored, str) else bytes(stored)
