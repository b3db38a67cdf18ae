"""A delivery in the main process: publish what a decision requires, then acknowledge.

The methods of the request are Celery's hooks; `Settling` decides what follows from each. If a
publication fails, the message returns to its queue: the decision is in the record, so the next
delivery only repeats the publication.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state as worker_state
from celery.worker.request import Request
from redis.exceptions import RedisError

from taskyard.backend.record_backend import DECIDED
from taskyard.engine.continuations import fix_continuations
from taskyard.engine.forged_headers import without_forged
from taskyard.engine.guarded_errbacks import guard
from taskyard.engine.pool_reports import (
    Terminated,
    escaped,
    over_time,
    read_report,
    reportable_failure,
    unwrapped,
    wrap_on_success,
)
from taskyard.engine.ports import NoOutcome, Reported
from taskyard.engine.read_message import position_of
from taskyard.engine.revoke_jobs import revoke_job
from taskyard.engine.settle_delivery import RECORDS, Settling
from taskyard.engine.source_queue import HOLDER, QUEUE
from taskyard.engine.strip_credentials import credential_of
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import DeadLettered
from taskyard.jobs.attempt_outcomes import Failed, cause_summary
from taskyard.jobs.states import State
from taskyard.records import Decided
from taskyard.runner import JobSkipped, death_causes
from taskyard.wire.credential_argument import CREDENTIAL
from taskyard.wire.letter_envelope import letter_id
from taskyard.wire.stamp_header import HEADER, Stamp

__all__ = ["JobRequest"]


class JobRequest(Request):  # type: ignore[misc]
    """One delivery of a job, as the worker's main process handles it."""

    def __init__(self, message: Any, **options: Any) -> None:
        given = options.pop("headers", None)
        trusted = without_forged(message.headers if given is None else given)
        super().__init__(message, headers=trusted, **options)
        self._killed = False
        holder = uuid.uuid4().hex
        self._request_dict[HOLDER] = holder
        self._request_dict[QUEUE] = self._yard.source(message)
        self._request_dict[CREDENTIAL] = credential_of(message)
        # Protocol 1 has its headers in the body: without its stamp a retry would count as stale.
        self._request_dict[HEADER] = (message.headers or {}).get(HEADER)
        stamp = self._stamp_of(message)
        self._settling = Settling(self, self._yard, self.task.name, holder, stamp)

    def __init_subclass__(cls, **options: Any) -> None:
        """Make each subclass check the successes that a pool reports."""
        super().__init_subclass__(**options)
        wrap_on_success(cls, _checked)

    @property
    def holder(self) -> str:
        """Return the name of this delivery in its job's record."""
        return self._settling.holder

    @property
    def _yard(self) -> WorkerContext:
        yard: WorkerContext = self.task.yard
        return yard

    def _stamp_of(self, message: Any) -> Stamp | None:
        return position_of(message)

    @cached_property
    def _context(self) -> Any:
        """Return Celery's context of the task, with the continuations as the child has them."""
        context = super()._context
        fix_continuations(context)
        return context

    # -- acknowledge: publish first ------------------------------------------------------------

    def acknowledge(self) -> None:
        """Publish what the outcome requires, then acknowledge.

        If that fails, the message returns to its queue.
        """
        if self.acknowledged or self._settling.waits:
            return
        if self._settling.publish():
            self._yard.backoff.succeeded(RECORDS, self.id)
            super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Return the message to its queue; publish a dead letter if Celery itself would drop it."""
        if self._settling.waits:
            return
        if requeue or self.acknowledged or self._settling.pending is not None:
            super().reject(requeue=requeue)
            return
        self._settling.dead_letter(death_causes.rejected())

    # -- outcomes that the child reports -------------------------------------------------------

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Prepare what the outcome requires; decide the outcome if the child could not."""
        guard(self.task)
        error = unwrapped(exc_info.exception)
        report = read_report(error, self._is_no_outcome, stopped=self._stopped_by_us())
        if not isinstance(report, Reported):
            worker_state.task_ready(self)
            return self._settling.report(report)
        if isinstance(error, JobSkipped) and error.ended is not None:
            return self._settling.ended(error.ended)
        self._owe_for(error, report)
        return super().on_failure(reportable_failure(exc_info, error), send_failed_event, return_ok)

    def _is_no_outcome(self, error: BaseException) -> bool:
        """Return whether Celery's own code failed, so that the error is no outcome of the job.

        If a retry or a failure cannot be stored because a result backend is unreachable,
        Celery raises an error in the child. The error hides what the child had to report,
        but the record has it.
        """
        outcomes = DeadLettered | Ignore | Reject | Retry | Terminated | KeyboardInterrupt
        return not isinstance(error, outcomes)

    def _stopped_by_us(self) -> bool:
        return bool(self._already_cancelled or self._already_revoked)

    def _owe_for(self, error: BaseException, report: Reported) -> None:
        self._settling.report(report)

    # -- ends that no child reports ------------------------------------------------------------

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Do nothing: the child handles a soft limit, and `on_failure` settled the hard limit."""
        if soft:
            super().on_timeout(soft, timeout)
        elif not self.acknowledged:
            worker_state.task_ready(self)
            self._settling.report(over_time(timeout))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Publish a dead letter for an expired or revoked message, which Celery would drop."""
        if self.acknowledged:
            return
        worker_state.task_ready(self)
        self._already_revoked = True
        outcome = self._revocation_outcome(terminated, expired)
        if terminated:
            self._settling.terminated(outcome)
        else:
            self._settling.dead_letter(outcome)

    def _announce_revoked_as_celery(self, *revocation: Any) -> None:
        """Report a revocation as Celery does, by result, signal and event."""
        super()._announce_revoked(*revocation)

    def _revocation_outcome(self, terminated: bool, expired: bool) -> Failed:
        return death_causes.expired(self.expires) if expired else death_causes.revoked()

    def announce_death(self, decided: Decided) -> None:
        """Report a job's death as Celery does: result, errbacks, chord and event."""
        cause = self._yard.records.read(self.id).cause
        letter = letter_id(self.id, decided.epoch, decided.generation)
        error = DeadLettered(letter, cause.get("code", ""), cause_summary(cause))
        self.task.backend.mark_as_failure(
            self.id, error, request=self._context, store_result=self.store_errors
        )
        self.send_event("task-failed", exception=repr(error), traceback="")

    def announce_ended(self, state: State) -> None:
        """Report that an operator has ended the job: result, chord, signal and event; acknowledge.

        A native job has its result already, from the script that ended it.
        """
        setattr(self._context, DECIDED, True)
        why = f"{state} by an operator"
        self._announce_revoked_as_celery(why, state is State.ABORTED, None, False)

    # -- revoked before it began ---------------------------------------------------------------

    def revoked(self) -> bool:
        """Return whether the message has expired or bears a revoked stamp; its end is settled then.

        The ids that Celery's workers remember as revoked are ignored: they come from every
        worker and every file, and would stop a replay. A command revokes a job in its record.
        """
        if self._already_revoked:
            return True
        if self.maybe_expire():
            self._announce_revoked("expired", False, None, True)
            return True
        return bool(self.stamped_headers) and self._revoked_by_stamp()

    def maybe_expire(self) -> bool:
        """Return whether the message has expired.

        Celery's method would also keep the job's id as revoked, and end a replay of the job.
        """
        expires = self.expires
        return bool(expires) and datetime.now(UTC if expires.tzinfo else None) > expires

    def _revoked_by_stamp(self) -> bool:
        """End the job if a command has revoked one of its stamps; a replayed job always runs."""
        revocation = self._yard.revoked_stamps.find(self.stamps)
        stamp = self._settling.stamp
        if revocation is None or (stamp is not None and stamp.generation):
            return False
        try:
            outcome = revoke_job(self._yard, revocation, self.id, self)
        except RedisError as error:
            self._settling.give_back(RECORDS, "revocation_unreachable", error)
            return True
        if outcome.ended is None:
            return False
        worker_state.task_ready(self)
        self._already_revoked = True
        self._settling.ended(outcome.ended)
        return True

    # -- ended on request ----------------------------------------------------------------------

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Terminate the attempt, because a control command of Celery requests it."""
        self._note_killed(pool)
        super().terminate(pool, signal)

    def end_greenlet(self, pool: Any) -> None:
        """End the attempt in a greenlet of this process; no pool reports its death."""
        self._note_killed(pool)
        pool.terminate_job(self.worker_pid)
        worker_state.task_ready(self)
        self._settling.report(NoOutcome("the greenlet of the job was killed by a control command"))

    def _note_killed(self, pool: Any) -> None:
        """Note that the end of an attempt in a greenlet of this process was requested."""
        if pool.is_green and self.time_start:
            self._killed = True
            self._yard.steps.killed.add(self._settling.holder)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cancel the attempt, because the connection to the broker was lost.

        The next delivery may begin at once, and no death is counted.
        """
        self._note_killed(pool)
        try:
            super().cancel(pool, signal, emit_retry)
        finally:
            # Even if announcing it fails, which needs the servers whose loss is the reason.
            if not self.acknowledged:
                self._yard.releases.owe(self.id, self._settling.holder)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        # First of all: the announcement needs the servers whose loss is the reason. If it fails,
        # the child's end would be taken for an operator's `revoke(terminate=True)`.
        self._already_cancelled = True
        super()._announce_cancelled(emit_retry=emit_retry)


def _checked(on_success: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: JobRequest, report: Any, **options: Any) -> Any:
        if self._killed:
            # gevent's pool reports a killed greenlet as a success; Celery would acknowledge.
            self._yard.steps.killed.discard(self._settling.holder)
            return None
        if escaped(report) is not None:
            return self.on_failure(report, return_ok=True)
        return on_success(self, report, **options)

    return checked
