"""The request in the main process: publishes what a decision obliges to, then acknowledges.

Hooks of Celery arm a duty; `acknowledge()` discharges it first. If that fails, the message goes
back instead: the decision is in the record, so its next delivery only repeats the publication.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cached_property
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state as worker_state

from taskyard.engine.continuations import fix_continuations
from taskyard.engine.deaths import RECORDS, Deaths
from taskyard.engine.duties import NOT_DISCHARGED, Duty, post_letter, republish
from taskyard.engine.guard import guard
from taskyard.engine.message import stamp_of
from taskyard.engine.origin import HOLDER, QUEUE
from taskyard.engine.own_letters import reused_duty
from taskyard.engine.reports import escaped, wrap_on_success
from taskyard.engine.request_names import without_forged
from taskyard.errors import DeadLettered
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Reused
from taskyard.runner import JobDeferred, JobIdReused, JobRetrying, Unreachable
from taskyard.runner.cause import plain_failure
from taskyard.wire.headers import HEADER, Stamp
from taskyard.wire.logs import logger

__all__ = ["JobRequest", "unwrapped"]

log = logger(__name__)


class JobRequest(Deaths):
    """One delivery of a job, in the main process."""

    def __init__(self, message: Any, **options: Any) -> None:
        given = options.pop("headers", None)
        told = without_forged(message.headers if given is None else given)
        super().__init__(message, headers=told, **options)
        self._duty: Duty | None = None
        self._holder = uuid.uuid4().hex
        self._killed = False
        self._request_dict[HOLDER] = self._holder
        self._request_dict[QUEUE] = self._yard.source(message)
        # Protocol 1 has its headers elsewhere: without its stamp a retry would count as stale.
        self._request_dict[HEADER] = (message.headers or {}).get(HEADER)
        self._stamp = stamp_of(message)

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the successes that a pool reports."""
        super().__init_subclass__(**options)
        wrap_on_success(cls, _checked)

    @cached_property
    def _context(self) -> Any:
        """Celery's context of the task, with continuations as the child has them."""
        context = super()._context
        fix_continuations(context)
        return context

    # -- acknowledge: publish first ------------------------------------------------------------

    def acknowledge(self) -> None:
        """Discharge the duty, then acknowledge; on failure the message goes back."""
        if self.acknowledged or self._held:
            return
        if self._duty is not None and not self._discharged(self._duty):
            return
        self._yard.refusals.worked(RECORDS, self.id)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Give back; or, where Celery itself drops a message, a letter instead of silence."""
        if self._held:
            return
        if requeue or self.acknowledged or self._duty is not None:
            super().reject(requeue=requeue)
            return
        text = "Celery refused the message before it ran, for example for an impossible ETA"
        self._condemn(plain_failure(Category.REJECTED, "rejected", "Rejected", text))

    def _discharged(self, duty: Duty) -> bool:
        what = f"a {duty.name} not published"
        try:
            duty.discharge()
        except NOT_DISCHARGED as error:
            self._give_back(what, "publication_failed", error)
            return False
        self._duty = None
        self._yard.refusals.worked(what, self.id)
        return True

    # -- outcomes that the child reports -------------------------------------------------------

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Arm what the outcome obliges to; decide where no child could."""
        guard(self.task)
        error = unwrapped(exc_info.exception)
        if isinstance(error, Unreachable) and not self._stopped_by_us():
            worker_state.task_ready(self)
            return self._give_back(RECORDS, "records_unreachable", error)
        if isinstance(error, SystemExit | WorkerLostError) and not self._stopped_by_us():
            return self._on_lost(str(error) or type(error).__name__)
        if isinstance(error, TimeLimitExceeded):
            return self._on_hard_limit(error)
        if isinstance(error, Terminated) and not self._stopped_by_us():
            # A process that outlived the end of one job, cut off with a connection, keeps that mark
            # in the pool: when another job kills it, the pool tells of a revocation nobody asked.
            return self._on_lost(f"its process was ended, and nobody asked for it: {error!r}")
        if self._is_untold(error) and not self._stopped_by_us():
            return self._on_lost(f"its process could not tell the outcome: {error!r:.500}")
        self._arm(error)
        return super().on_failure(_safe(exc_info, error), send_failed_event, return_ok)

    def _is_untold(self, error: BaseException) -> bool:
        """Whether this is no outcome: Celery's own code failed after the decision, or before it.

        A result backend that is away when a retry or a failure is to be stored raises in the
        child, and takes the place of what the child had to say. The record knows better.
        """
        outcomes = DeadLettered | Ignore | Reject | Retry | Terminated | KeyboardInterrupt
        return not isinstance(error, outcomes)

    def _stopped_by_us(self) -> bool:
        return bool(self._already_cancelled or self._already_revoked)

    def _arm(self, error: BaseException) -> None:
        match error:
            case JobRetrying():
                policy = None if self._stamp is None else self._stamp.policy
                stamp = Stamp(error.epoch, error.generation, error.seq, policy=policy)
                self._duty = republish(self._yard, self.id, self.message, stamp, error.due_us)
            case JobDeferred():
                self._await_lease(error.wait_us)
            case JobIdReused():
                reused = Reused(error.job_type, State(error.state), error.epoch)
                named = {"given": self.id, "name": self.task.name}
                self._duty = reused_duty(self._yard, self.message, reused, **named)
            case DeadLettered():
                self._duty = post_letter(self._yard, self.id, self.message)
            case _:
                return

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Ended by a control command."""
        self._note_killed(pool)
        super().terminate(pool, signal)

    def _note_killed(self, pool: Any) -> None:
        """Let an attempt in a greenlet of this process know that its end was asked for."""
        if pool.is_green and self.time_start:
            self._killed = True
            self._yard.runner.killed.add(self._holder)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cut off by a lost connection: the next delivery may begin at once, and nothing counts."""
        self._note_killed(pool)
        try:
            super().cancel(pool, signal, emit_retry)
        finally:
            # Also where announcing it fails, which needs the servers whose loss is the reason.
            if not self.acknowledged:
                self._yard.releases.owe(self.id, self._holder)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        # First of all: the announcement needs the servers whose loss is the reason. Should it
        # fail, the child's end would be taken for an operator's `revoke(terminate=True)`.
        self._already_cancelled = True
        super()._announce_cancelled(emit_retry=emit_retry)


def _checked(on_success: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: JobRequest, report: Any, **options: Any) -> Any:
        if self._killed:
            # gevent's pool reports a greenlet that was killed as a success, which acknowledges.
            self._yard.runner.killed.discard(self._holder)
            return None
        if escaped(report) is not None:
            return self.on_failure(report, return_ok=True)
        return on_success(self, report, **options)

    return checked


def unwrapped(error: Any) -> BaseException:
    """The exception itself, where the pool has wrapped it with its traceback."""
    inner: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return inner


def _safe(exc_info: Any, error: BaseException) -> Any:
    """A MemoryError from the child would end the whole worker; it is one job's failure."""
    if not isinstance(error, MemoryError):
        return exc_info
    try:
        raise RuntimeError(f"MemoryError: {error}")  # noqa: TRY301 - Celery wants one that was raised
    except RuntimeError:
        return ExceptionInfo()
