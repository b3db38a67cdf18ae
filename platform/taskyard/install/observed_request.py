"""One delivery of an observed task: Celery's own request, which also reports to the observer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from celery.exceptions import Ignore, Reject, Retry
from celery.worker.request import Request

from taskyard.engine.pool_reports import (
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
    escaped,
    unwrapped,
    wrap_on_success,
)
from taskyard.engine.read_message import job_id_of, raw_message
from taskyard.install.attribute_names import COPY
from taskyard.install.body_endings import delay_s_of
from taskyard.install.failure_in_main import category_of, failure_seen
from taskyard.install.fanout import Copy, copy_id
from taskyard.install.observed_events import DeadBeforeStart, Ended, Requeued, Started, Watched
from taskyard.install.observer import Observer
from taskyard.jobs.attempt_outcomes import Decision, Failed
from taskyard.jobs.replay_by_category import FANOUT
from taskyard.jobs.retry_policy import Category
from taskyard.runner.stored_decision import decision_of, plain_failure
from taskyard.wire.stamp_header import usable_id

__all__ = ["ObservedRequest"]

_REPLACED: Final = "Replaced by new task"


class ObservedRequest(Request):  # type: ignore[misc]
    """A request that works as Celery's own, and reports each event to the observer afterwards."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap `on_success` of each subclass, which Celery generates, to report to the observer."""
        super().__init_subclass__(**options)
        wrap_on_success(cls, _watching)

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._holder = uuid.uuid4().hex
        self._requeued = False
        self._reported = False

    @property
    def _observer(self) -> Observer:
        observer: Observer = self.task.yard.observer
        return observer

    @property
    def _watched(self) -> Watched:
        queue = self.task.yard.source(self.message)
        # Celery runs a task with an id that no store could hold as a key.
        own = usable_id(self.id) or job_id_of(self.message)
        job_id = own if self._copy is None else copy_id(own, self._copy)
        return Watched(job_id, self._holder, self._type, queue, self.hostname)

    @property
    def _copy(self) -> Copy | None:
        copy: Copy | None = getattr(self.message, COPY, None)
        return copy

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Report that a process took the delivery."""
        super().on_accepted(pid, time_accepted)
        self._observer.observe(Started(self._watched))

    def reject(self, requeue: bool = False) -> None:
        """Remember whether the message was returned to its queue."""
        super().reject(requeue)
        self._requeued = self._requeued or requeue

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Report an end without success; the exception says which kind of end."""
        try:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            self._report_failure(unwrapped(exc_info.exception), exc_info.traceback)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Report that the task reached its hard time limit."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._report_failure(TimeLimitExceeded(timeout), "")

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Report that the message expired, or was revoked or terminated."""
        super()._announce_revoked(reason, terminated, signum, expired)
        category = Category.EXPIRED if expired else Category.REJECTED
        outcome = plain_failure(category, reason, reason.capitalize(), f"the task was {reason}")
        if self.time_start:
            self._report_death(outcome)
        else:
            outcome = self._marked(outcome)
            self._report_once(DeadBeforeStart(self._watched, outcome, raw_message(self.message)))

    # -- reporting -----------------------------------------------------------------------------

    def _report_failure(self, error: BaseException, trace: Any) -> None:
        lost = isinstance(error, WorkerLostError | SystemExit)
        memory = self.task.yard.memory.last_words(self.id) if lost else ""
        match error:
            case Terminated():
                return
            case Retry():
                facts = {"delay_s": delay_s_of(error.when), "code": "retry", "message": str(error)}
                self._report_once(Ended(self._watched, Decision.RETRYING, facts))
            case Ignore() if str(error) != _REPLACED:
                self._report_once(Ended(self._watched, Decision.COMPLETED))
            case Ignore() | Reject(requeue=True):
                self._report_once(Requeued(self._watched))
            case WorkerLostError() | SystemExit() if self._requeued:
                self._report_once(Requeued(self._watched, lost=f"{error}{memory}"))
            case _:
                failure = failure_seen(self._type, error, trace)
                failure = replace(failure, message=f"{failure.message}{memory}")
                retried = bool(self._request_dict.get("retries"))
                category = category_of(failure.code, error, retried=retried, lost=lost)
                self._report_death(Failed(failure, category))

    def _report_death(self, outcome: Failed) -> None:
        outcome = self._marked(outcome)
        facts = decision_of(outcome)
        decision = facts.pop("decision")
        self._report_once(Ended(self._watched, decision, facts, raw_message(self.message)))

    def _marked(self, outcome: Failed) -> Failed:
        """Mark the death of a fanout copy.

        No replay reaches the worker that the copy was for.
        """
        if self._copy is None:
            return outcome
        details = {**(outcome.failure.details or {}), FANOUT: self._copy.exchange}
        return replace(outcome, failure=replace(outcome.failure, details=details))

    def _report_success(self, outcome: Any) -> None:
        """Report a success.

        A success without a duration means that Celery failed before the task ran, or
        skipped it as done before.
        """
        failed, _, runtime = outcome
        if failed or runtime is not None or self._was_done_before:
            self._report_once(Ended(self._watched, Decision.COMPLETED))
            return
        text = (
            "Celery could not start the task and counted it as done; see the worker's log for "
            "the cause"
        )
        outcome = plain_failure(Category.INTERNAL_ERROR, "not_begun", "NotBegun", text)
        self._report_death(outcome)

    @property
    def _was_done_before(self) -> bool:
        """Return whether Celery itself may have skipped a redelivery of a successful task."""
        skips = self._app.conf.worker_deduplicate_successful_tasks
        return bool(skips and self.delivery_info.get("redelivered"))

    def _report_once(self, seen: Any) -> None:
        if not self._reported:
            self._reported = True
            self._observer.observe(seen)


def _watching(on_success: Callable[..., Any]) -> Callable[..., Any]:
    def watched(self: ObservedRequest, report: Any, *arguments: Any, **options: Any) -> Any:
        error = escaped(report)
        if error is not None:
            # Report it now: Celery fails on such a report.
            self._report_failure(error, report.traceback)
        result = on_success(self, report, *arguments, **options)
        # If Celery turned the success into a failure, `on_failure` has reported that already.
        self._report_success(report)
        return result

    return watched
