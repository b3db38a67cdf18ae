"""The Celery task of a job type, which runs the attempt's pipeline in the child process."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from celery import Task, states

from taskyard.backend.record_backend import DECIDED
from taskyard.engine.continuations import fix_continuations
from taskyard.engine.guarded_errbacks import guard
from taskyard.engine.publish_continuations import dead_letter_if_done, publish_continuations
from taskyard.engine.read_message import position_in
from taskyard.engine.request import JobRequest
from taskyard.engine.source_queue import HOLDER, QUEUE
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import DeadLettered, Refused
from taskyard.jobs.handler_registry import Handler
from taskyard.runner import JobSkipped
from taskyard.runner.attempt_steps import Delivery
from taskyard.wire.credential_argument import CREDENTIAL
from taskyard.wire.stamp_header import Stamp

__all__ = ["PARTS", "JobTask", "delivery_in", "make_task"]

# An attribute of the child's request: it creates the contexts of job types that are called within
# the attempt.
PARTS: Final = "taskyard_parts"


class JobTask(Task):  # type: ignore[misc]
    """The Celery task of a job type; each run is one attempt of a job."""

    abstract = True
    Request = JobRequest
    acks_late = True
    reject_on_worker_lost = True
    acks_on_failure_or_timeout = True
    throws = (DeadLettered,)
    yard: WorkerContext
    handler: Handler

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the attempt; a call by another task runs the handler within that task's attempt.

        Raises `Refused` outside of a job.
        """
        request = self.request
        if request.called_directly:
            return self._run_part(args, kwargs)
        fix_continuations(request)
        guard(self)
        try:
            result = self.yard.runner.run(
                self.handler,
                delivery_in(self, position_in(request)),
                args,
                kwargs,
                encode=self._encode,
                decode=self._decode,
            )
        except JobSkipped as skipped:
            dead_letter_if_done(self, skipped)
            raise
        setattr(request, DECIDED, True)
        publish_continuations(self, result)
        return result

    def _run_part(self, args: Any, kwargs: Any) -> Any:
        around = self.app.current_worker_task
        part_of = None if around is None else around.request.get(PARTS)
        if part_of is None:
            raise Refused(
                f"{self.name} is a job type: only celery.map and celery.starmap may call its task "
                "directly. Enqueue a job, or test its handler with taskyard.testing"
            )
        return self.yard.runner.run_part(self.handler, args, kwargs, part_of(self.name))

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the attempt as `__call__` does; Celery calls this method."""
        return self(*args, **kwargs)

    def _encode(self, value: Any) -> bytes:
        """Return Celery's form of a successful result, without fields for Celery's own store."""
        request = self.request
        meta: dict[str, Any] = {
            "status": states.SUCCESS,
            "result": value,
            "traceback": None,
            "children": [child.as_tuple() for child in request.children or ()],
            "date_done": datetime.now(UTC).isoformat(),
            "task_id": request.id,
        }
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        return json.dumps(meta, allow_nan=False).encode()

    def _decode(self, meta: bytes) -> Any:
        return json.loads(meta)["result"]


def delivery_in(task: Any, stamp: Stamp | None) -> Delivery:
    """Return the delivery that a task runs for in this child process; `stamp` is the message's."""
    request = task.request
    limits = request.timelimit or (None, None)
    return Delivery(
        job_id=request.id,
        job_type=task.name,
        queue=str(request.get(QUEUE) or ""),
        stamp=stamp,
        holder=getattr(request, HOLDER, None) or uuid.uuid4().hex,
        process=str(os.getpid()),
        worker=request.hostname,
        time_limit_s=limits[0] or task.time_limit,
        credential=request.get(CREDENTIAL),
    )


def make_task(app: Any, yard: WorkerContext, handler: Handler) -> Any:
    """Register the Celery task of a handler."""
    job_type = yard.catalogue[handler.name]
    attributes = {
        "name": handler.name,
        "yard": yard,
        "handler": handler,
        "time_limit": job_type.time_limit_s,
        "soft_time_limit": job_type.soft_time_limit_s,
        "__module__": handler.function.__module__,
        "__doc__": handler.function.__doc__,
    }
    return app.register_task(type(f"{handler.name}_task", (JobTask,), attributes)())
