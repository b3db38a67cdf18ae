"""Celery's own tasks on a worker of job types: protected as those of an installed app."""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any

from celery import states

from taskyard.backend.record_backend import DECIDED
from taskyard.broker import Publisher
from taskyard.deadletters import LetterBox
from taskyard.engine.lease_releases import Releases
from taskyard.engine.ports import WorkerPorts
from taskyard.engine.process_memory import ProcessMemory
from taskyard.engine.worker_context import WorkerContext
from taskyard.install.adopt_task import protect
from taskyard.install.attempt_pipeline import TaskRunner
from taskyard.install.celery_tasks import CELERY_TASKS
from taskyard.install.modes import Mode
from taskyard.install.retry_rules import OwnRetries
from taskyard.records import Records
from taskyard.wire.lasting_failures import Refusals

__all__ = ["protect_celery_tasks"]


def protect_celery_tasks(app: Any, yard: WorkerContext) -> None:
    """Make each of them run as one recorded job, with a letter if it fails."""
    app.finalize()
    own = CeleryTasksContext(yard)
    for name in CELERY_TASKS:
        protect(app.tasks[name], own)


class CeleryTasksContext(WorkerContext):
    """What their requests and attempts need; connections are the worker's own."""

    def __init__(self, worker: WorkerContext) -> None:
        super().__init__(worker.settings, worker.catalogue)
        self._worker = worker
        self.rules = OwnRetries(worker.catalogue, random.SystemRandom())

    @property
    def records(self) -> Records:
        """The worker's."""
        return self._worker.records

    @cached_property
    def task_runner(self) -> TaskRunner:
        """The attempt of a task that knows nothing of Taskyard, in a child."""
        return _Runner(self.steps)

    def mode(self, name: str) -> Mode:
        """The mode of every task of such a worker."""
        return Mode.PROTECT

    @property
    def releases(self) -> Releases:
        """The worker's."""
        return self._worker.releases

    @property
    def ports(self) -> WorkerPorts | None:  # type: ignore[override]  # the consumer sets the worker's
        """The worker's."""
        return self._worker.ports

    @property
    def refusals(self) -> Refusals:
        """The worker's."""
        return self._worker.refusals

    @property
    def memory(self) -> ProcessMemory:
        """The worker's."""
        return self._worker.memory

    @property
    def publisher(self) -> Publisher:
        """The worker's."""
        return self._worker.publisher

    @property
    def letters(self) -> LetterBox:
        """The worker's."""
        return self._worker.letters


class _Runner(TaskRunner):
    """Stores results as for job types: in Celery's form, in the step that decides."""

    def _stored(self, task: Any, value: Any) -> bytes:
        backend, request = task.backend, task.request
        result = backend.encode_result(value, states.SUCCESS)
        meta = backend._get_result_meta(result, states.SUCCESS, None, request)
        stored = backend.encode({**meta, "task_id": request.id})
        setattr(request, DECIDED, True)
        return stored.encode() if isinstance(stored, str) else bytes(stored)
