"""One delivery of a protected task in the main process.

Celery reports its outcome (result, errbacks, signals, events) unchanged, but only after the dead
letter is published. This class stands between the app's own `Request` class, whose methods come
first, and Celery's.
"""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.saferepr import saferepr
from redis.exceptions import RedisError

from taskyard.engine.pool_reports import Terminated, TimeLimitExceeded, WorkerLostError, unwrapped
from taskyard.engine.ports import Reported
from taskyard.engine.request import JobRequest
from taskyard.install.defer_eta import date_before_waiting
from taskyard.install.effective_stamp import effective_stamp
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.states import State
from taskyard.records import Decided
from taskyard.runner import death_causes
from taskyard.runner.settlement_rules import PostLetter
from taskyard.wire.stamp_header import Stamp

__all__ = ["ProtectedRequest"]


class ProtectedRequest(JobRequest):
    """A delivery of a protected task that reports what Celery's own request would report."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        if self._request_dict.get("eta") is None:
            self._request_dict["eta"] = date_before_waiting(message)
        self._death: BaseException | None = None
        self._revocation: tuple[Any, ...] | None = None

    def _stamp_of(self, message: Any) -> Stamp | None:
        return effective_stamp(super()._stamp_of(message), self._request_dict.get("retries"))

    def _owe_for(self, error: BaseException, report: Reported) -> None:
        if isinstance(error, Reject):
            owed = not error.requeue
        else:
            owed = not isinstance(error, Retry | Ignore)
        if owed:
            self._settling.owe(PostLetter())
        else:
            super()._owe_for(error, report)

    def _is_no_outcome(self, error: BaseException) -> bool:
        """Return whether the record shows that the attempt did not end with this error.

        An app may raise any error, so the error alone does not show it. If Redis does not
        answer, no end is assumed. Errors that Celery itself handles, such as `Retry`, always
        are an end.
        """
        if isinstance(error, Ignore | Reject | Retry | Terminated | KeyboardInterrupt):
            return False
        try:
            state = self._yard.records.read(self.id).state
        except RedisError:
            return True
        return state in (State.RUNNING, State.RETRYING, State.REROUTED, State.COMPLETED)

    def reject(self, requeue: bool = False) -> None:
        """Reject the message; a dead letter that is not published yet goes first.

        All other messages are rejected as in Celery.
        """
        if requeue or self._settling.pending is None:
            super().reject(requeue)
            return
        self.acknowledge()
        self.send_event("task-rejected", requeue=False)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Remember the cause of a death; `announce_death` reports it."""
        error = unwrapped(exc_info.exception)
        if isinstance(error, SystemExit):
            self._death = unwrapped(self._worker_lost_info(error).exception)
        elif isinstance(error, WorkerLostError | TimeLimitExceeded):
            self._death = error
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Remember the time limit that was reached; `announce_death` reports it."""
        if not soft:
            self._death = self._death or TimeLimitExceeded(timeout)
        super().on_timeout(soft, timeout)

    def announce_death(self, decided: Decided) -> None:
        """Report a death as Celery does: result, errbacks, chord, hook, signal and event."""
        if self._revocation is not None:
            self._announce_revoked_as_celery(*self._revocation)
            return
        cause = self._yard.records.read(self.id).cause
        error = self._death or WorkerLostError(cause.get("message", ""))
        self.task.backend.mark_as_failure(
            self.id, error, request=self._context, store_result=self.store_errors
        )
        self.task.request_stack.push(self._context)
        try:
            if isinstance(error, TimeLimitExceeded):
                self.task.on_failure(error, self.id, self.args, self.kwargs, None)
            signals.task_failure.send(
                sender=self.task,
                task_id=self.id,
                exception=error,
                args=self.args,
                kwargs=self.kwargs,
                traceback=None,
                einfo=None,
            )
        finally:
            self.task.request_stack.pop()
        self.send_event("task-failed", exception=saferepr(error), traceback="")

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Record the death of an expired or revoked message.

        Celery reports the death, and the acknowledgement publishes the dead letter.
        """
        self._revocation = (reason, terminated, signum, expired)
        super()._announce_revoked(reason, terminated, signum, expired)

    def _revocation_outcome(self, terminated: bool, expired: bool) -> Failed:
        if not terminated:
            return super()._revocation_outcome(terminated, expired)
        return death_causes.terminated()
