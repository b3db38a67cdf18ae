"""Control Celery's pools by three ports: `Attempts`, `Work` and `Processes`.

| pool | stop softly | stop hard | processes | | --- | --- | --- | --- | | prefork, ours or Celery's
| the signal of the soft time limit | SIGKILL to its process | yes | | gevent, eventlet | no | the
greenlet is killed | no | | threads, solo | no | no | no |

A process of prefork has one job: it gets the next when this one's end was read here. So a signal
that is sent while a request is active meets its job, or a process without one. (`-O fast` gives a
process the next job early; that one may be met then, and comes again after a counted death.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any, Final

from celery.worker import state as worker_state

from taskyard.clock import us_of
from taskyard.engine.celery_messages import CeleryMessages
from taskyard.engine.ports import Force, RunningAttempt, WaitingMessage, WaitsFor
from taskyard.engine.read_message import job_id_of, task_of
from taskyard.engine.request import JobRequest
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import NotSupportedByPool
from taskyard.jobs.states import TERMINAL, State
from taskyard.records import Record
from taskyard.wire.redacted_logs import logger

__all__ = ["CeleryAttempts", "held_requests"]

log = logger(__name__)

_TRIES: Final = 5


class CeleryAttempts:
    """The running and waiting attempts of one worker; `consumer` is Celery's."""

    def __init__(self, consumer: Any, messages: CeleryMessages) -> None:
        self._consumer, self._messages = consumer, messages

    @property
    def _context(self) -> WorkerContext:
        context: WorkerContext = self._consumer.app.taskyard
        return context

    # -- stop an attempt -----------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        """Return whether this is a pool of processes or of greenlets."""
        pool = self._consumer.pool
        return bool(pool.uses_semaphore or pool.is_green)

    def runs(self, job_id: str) -> bool:
        """Return whether an attempt of the job runs in this worker."""
        return any(request.id == job_id for request in _copied(worker_state.active_requests))

    def stop(self, job_id: str, token: int, force: Force) -> bool:
        """Stop the running attempt of a job, if its token is `token`."""
        request = self._request_of(job_id, token)
        if request is None:
            return False
        if force is Force.SOFT:
            stopped = self._signal(request.worker_pid, signal.SIGUSR1, "stop an attempt softly")
        elif self._consumer.pool.is_green:
            request.end_greenlet(self._consumer.pool)
            stopped = True
        else:
            stopped = self._signal(request.worker_pid, signal.SIGKILL, "stop an attempt")
        if stopped:
            log.warning(
                "job %s: this worker stops its attempt with token %d (%s)",
                job_id,
                token,
                force,
                extra={"action": "attempt_stopped", "job_id": job_id, "token": token},
            )
        return stopped

    def _request_of(self, job_id: str, token: int) -> JobRequest | None:
        """Return the request whose running attempt has the token.

        The record is read only if the job runs in this worker.
        """
        requests = [
            request
            for request in tuple(worker_state.active_requests)
            if isinstance(request, JobRequest) and request.id == job_id
        ]
        if not requests:
            return None
        record = self._context.records.read(job_id)
        if record.number("token") != token:
            return None
        return next((each for each in requests if self._has_token(each, record)), None)

    def _has_token(self, request: JobRequest, record: Record) -> bool:
        """Return whether this request runs the attempt whose token the record has.

        The record of a running or rerouted job names the delivery of its last attempt. The
        record of a job that an operator has ended names only the worker; the attempt may run
        in it unless the record has the attempt's own outcome. In every other state the attempt
        has ended.
        """
        if record.state is State.RUNNING:
            return record.fields.get("holder") == request.holder
        if record.state is State.REROUTED:
            return record.fields.get("moved_holder") == request.holder
        ended = record.state in TERMINAL and record.number("decided_token") != record.number(
            "token"
        )
        return ended and record.fields.get("worker") == request.hostname

    # -- list ----------------------------------------------------------------------------------

    def running(self) -> list[RunningAttempt]:
        """Return the running attempts of this worker, oldest first."""
        found = sorted(worker_state.active_requests, key=lambda each: each.time_start)
        return [self._running(request) for request in found]

    def _running(self, request: Any) -> RunningAttempt:
        return RunningAttempt(
            job_id=request.id,
            job_type=request.type,
            queue=self._context.source(request.message),
            token=self._token_of(request),
            started_us=us_of(request.time_start),
            process=os.getpid() if self._consumer.pool.is_green else request.worker_pid,
        )

    def _token_of(self, request: Any) -> int | None:
        if not isinstance(request, JobRequest):
            return None
        record = self._context.records.read(request.id)
        return record.number("token") if self._has_token(request, record) else None

    def waiting(self) -> list[WaitingMessage]:
        """Return the messages that this worker holds and that no process has begun.

        They wait in Celery's lines, under `hold`, or in the pool.
        """
        found = {
            str(each.message.delivery_tag): self._waiting(each.message, each.waits_for)
            for each in self._messages.in_line()
        }
        for request in tuple(worker_state.reserved_requests):
            tag = str(request.message.delivery_tag)
            if request not in worker_state.active_requests and tag not in found:
                found[tag] = self._waiting(request.message, WaitsFor.PROCESS)
        return list(found.values())

    def _waiting(self, message: Any, waits_for: WaitsFor) -> WaitingMessage:
        return WaitingMessage(
            job_id=job_id_of(message),
            job_type=task_of(message),
            queue=self._context.source(message),
            waits_for=waits_for,
            tag=str(message.delivery_tag),
        )

    def processes_of_jobs(self) -> Mapping[str, int]:
        """Return the id of the process that runs each job."""
        running = tuple(worker_state.active_requests)
        return {job.id: job.worker_pid for job in running if job.worker_pid}

    def held_tags(self, most: int) -> tuple[str, ...]:
        """Return the delivery tags of messages that were taken to be run and are not settled."""
        requests = _copied(worker_state.reserved_requests)
        if len(requests) > most:
            return ()
        messages = (getattr(request, "message", None) for request in requests)
        return tuple(sorted(str(each.delivery_tag) for each in messages if each is not None))

    def has_place(self, message: Any) -> bool:
        """Return whether this worker has reserved a request for this message."""
        return any(request.message is message for request in worker_state.reserved_requests)

    # -- end a process -------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Return the process ids of the prefork pool."""
        found = getattr(getattr(self._consumer.pool, "_pool", None), "_pool", None)
        return [process.pid for process in found] if isinstance(found, list) else []

    def end_process(self, pid: int) -> bool:
        """Kill a process of the prefork pool, as an operator's `kill` does.

        The pool then treats the process as lost.
        """
        return self._signal(pid, signal.SIGKILL, "end a process")

    def _signal(self, pid: int, signum: signal.Signals, act: str) -> bool:
        pool = self._consumer.pool
        if not pool.uses_semaphore:
            raise NotSupportedByPool(act, f"{type(pool).__module__}.{type(pool).__qualname__}")
        if pid not in self.processes():
            return False
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return False  # it has died, and the pool will notice
        return True


def _copied(requests: Any) -> list[Any]:
    """Return a copy of a set that the main loop may change meanwhile.

    The copy is empty if the set changes all the time.
    """
    for _ in range(_TRIES):
        try:
            return list(requests)
        except RuntimeError:
            continue
    return []


def held_requests() -> dict[str, Any]:
    """Return the requests that this worker holds, by the job's id: running, reserved, scheduled."""
    scheduled, reserved = worker_state.scheduled_requests, worker_state.reserved_requests
    return {request.id: request for request in (*_copied(scheduled), *_copied(reserved))}
