"""Run one attempt of an existing app's task: begin -> body -> decide -> publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from celery import states
from celery.app.task import get_actual_ignore_result
from celery.exceptions import Retry
from kombu.exceptions import EncodeError, OperationalError
from redis.exceptions import RedisError

from taskyard.errors import DeadLettered
from taskyard.install.body_endings import (
    Again,
    Ending,
    Ignored,
    Raised,
    Rejected,
    Replaced,
    Returned,
)
from taskyard.install.celery_tracer import reportable
from taskyard.install.failure_in_main import category_of
from taskyard.install.modes import Mode
from taskyard.install.result_recall import keep, recall, recall_failure
from taskyard.install.withheld_publications import Attempt
from taskyard.jobs.attempt_outcomes import Decision, Failed, Failure
from taskyard.records import Decided, Run
from taskyard.records.script_replies import Finished
from taskyard.runner import JobRetrying, JobSkipped, Unreachable, failure_here
from taskyard.runner.attempt_steps import AttemptSteps, Delivery
from taskyard.runner.lease import Lease
from taskyard.runner.soft_limit_masking import soft_limit_blocked
from taskyard.runner.stored_decision import encode_cause
from taskyard.wire.letter_envelope import letter_id
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import HEADER, Stamp

__all__ = ["TaskRunner", "successor_of"]

log = logger(__name__)

# They plan other tasks; the one with the job's id is among those.
_PLANS: Final = frozenset({"celery.chain", "celery.group", "celery.chord"})


class TaskRetrying(JobRetrying):
    """Reports a decided retry, with the exception and the time of Celery's own `Retry`."""

    def __init__(
        self,
        seq: int,
        due_us: int,
        epoch: int,
        generation: int,
        cause: str,
        exc: BaseException | None = None,
        when: Any = None,
    ) -> None:
        super().__init__(seq, due_us, epoch, generation, cause)
        Retry.__init__(self, None, exc, when)

    def __reduce__(self) -> Any:
        """Pickle the exception with all its attributes."""
        facts = (self.seq, self.due_us, self.epoch, self.generation, self.cause)
        return type(self), (*facts, self.exc, self.when)


def successor_of(signature: Any, job_id: str) -> dict[str, Any] | None:
    """Return the task in `signature` that has the job's id; None if there is none.

    In a chain that is the last task, in a chord the body.
    """
    for found in _signatures(signature):
        if found["task"] not in _PLANS and (found.get("options") or {}).get("task_id") == job_id:
            return found
    return None


def publish_replacement(signature: Any, job_id: str, stamp: Stamp) -> None:
    """Publish the signature that replaces a task.

    The message with the job's id gets the job's position, whenever it arrives. Raises what
    Celery's publishing raises.
    """
    found = successor_of(signature, job_id)
    if found is not None:
        options = found["options"]
        options["headers"] = {**(options.get("headers") or {}), HEADER: stamp.header()}
    signature.delay()


def _signatures(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("task"), str):
            yield value
        for item in value.values():
            yield from _signatures(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _signatures(item)


class TaskRunner:
    """Runs attempts of tasks that do not know Taskyard; their exceptions are not changed."""

    def __init__(self, steps: AttemptSteps) -> None:
        self.steps = steps

    def run_task(
        self, task: Any, delivery: Delivery, attempt: Attempt, body: Callable[[], Any]
    ) -> Any:
        """Run one attempt and return the body's value, or raise what the body raised.

        Raises `TaskRetrying`, `JobDeferred` or `JobSkipped` for the main process to act on, and
        `Reject(requeue=True)` if Redis does not answer.
        """
        answer = self.steps.begin(delivery)
        if not isinstance(answer, Run):
            return self._found(task, delivery, answer)
        with self.steps.leased(delivery, answer) as lease:
            attempt.begun(self.steps.context(delivery, answer, lease))
            ending = attempt.call(body, self.steps.process_end(delivery))
        with soft_limit_blocked():
            return self._end(_Case(task, delivery, answer, attempt, lease), ending)

    def _found(self, task: Any, delivery: Delivery, answer: Any) -> Any:
        """Return or raise the outcome that an earlier attempt decided; the body does not run."""
        job_id = delivery.job_id
        try:
            return self.steps.without_run(delivery, answer, lambda kept: recall(task, job_id, kept))
        except JobSkipped as skipped:
            if not skipped.reason.startswith(JobSkipped.DONE):
                raise
            return recall(task, job_id, None)
        except DeadLettered as dead:
            if not isinstance(answer, Decided):
                raise
            raise reportable(recall_failure(task, job_id) or dead) from None

    def _end(self, case: _Case, ending: Ending) -> Any:
        match ending:
            case Returned(value):
                try:
                    stored = self._stored(case.task, value)
                except EncodeError as error:
                    raise self._failed(case, error) from error
                self._written(case, Decision.COMPLETED, result=stored)
                return value
            case Ignored(error):
                self._written(case, Decision.COMPLETED)
                raise error
            case Again(retry):
                raise self._retrying(case, retry)
            case Replaced(error):
                self._replace(case)
                raise error
            case Rejected(error) if error.requeue:
                self._release(case)
                raise error
            case Rejected(error):
                self._dead_letter(case, error)
                raise error
            case Raised(error):
                raise self._failed(case, error)

    def _stored(self, task: Any, value: Any) -> bytes:
        """Return what the record keeps of a result that the app's own backend stores.

        Raises kombu's `EncodeError` if the backend cannot store the result. Celery finds
        that fault when it completes the task, and then fails the task, at each of its
        deliveries.
        """
        kept = keep(value, self.steps.records.settings.max_result_bytes)
        if not kept and not get_actual_ignore_result(task, task.request):
            backend = task.backend
            backend.encode(backend.encode_result(value, states.SUCCESS))
        return kept

    def _written(self, case: _Case, decision: Decision, **facts: Any) -> Finished:
        facts |= {"decision": decision, "stopped": case.lease.stopped}
        return self.steps.finish(case.delivery, case.run, **facts)

    def _retrying(self, case: _Case, retry: Any) -> TaskRetrying:
        kept = case.attempt.next_message
        why = retry.exc or retry
        done = self._written(
            case,
            Decision.RETRYING,
            delay_s=case.attempt.delay_s,
            cause=b"" if kept is None else kept.encode(),
            code="retry",
            message=f"{type(why).__name__}: {why}"[:2000],
        )
        run = case.run
        return TaskRetrying(
            done.seq, done.due_us, run.epoch, run.generation, str(why)[:200], retry.exc, retry.when
        )

    def _release(self, case: _Case) -> None:
        """Release the lease, because the task requested its message again.

        The attempt ends without counting.
        """
        job_id = case.delivery.job_id
        try:
            self.steps.records.attempts.release(job_id, case.delivery.holder)
        except RedisError as error:
            log.warning(
                "job %s asked to run again, but its lease was not released, because Redis "
                "does not answer; the next attempt waits until the lease ends: %s",
                job_id,
                error,
                extra={"action": "release_unreachable", "job_id": job_id},
            )

    def _replace(self, case: _Case) -> None:
        """Continue the job under another task, or end it if that task is in mode `off`."""
        job_id, signature = case.delivery.job_id, case.attempt.replacement
        successor = successor_of(signature, job_id)
        if successor is None or case.task.yard.mode(successor["task"]) is Mode.OFF:
            self._written(case, Decision.COMPLETED)
            seq = case.run.seq
        else:
            note = f"replaced by {successor['task']}"
            done = self._written(case, Decision.RETRYING, code="replaced", message=note)
            seq = done.seq
        stamp = Stamp(case.run.epoch, case.run.generation, seq)
        try:
            publish_replacement(signature, job_id, stamp)
        except (OperationalError, OSError) as error:
            # Decided, not published: the next delivery starts this step again.
            raise Unreachable(
                "the task that replaces this one was not published, so the "
                f"message returns and the next delivery publishes it: {error}"
            ) from error

    def _failed(self, case: _Case, error: BaseException) -> BaseException:
        """Return what Celery gets for the task's failure, after the failure is decided."""
        failure = self._dead_letter(case, error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            # As the task's result it would end the process that asks for it.
            letter = letter_id(case.delivery.job_id, case.run.epoch, case.run.generation)
            dead = DeadLettered(letter, failure.code, failure.summary)
            dead.__cause__ = error
            return dead
        return reportable(error)

    def _dead_letter(self, case: _Case, error: BaseException) -> Failure:
        failure = failure_here(case.delivery.job_type, error)
        retried = bool(case.task.request.retries)
        outcome = Failed(failure, category_of(failure.code, error, retried=retried))
        self._written(
            case,
            Decision.DEAD_LETTERED,
            cause=encode_cause(outcome),
            code=failure.code,
            category=outcome.category,
            message=failure.summary,
        )
        return failure


class _Case:
    """One attempt, with everything that is needed when it ends."""

    def __init__(
        self, task: Any, delivery: Delivery, run: Run, attempt: Attempt, lease: Lease
    ) -> None:
        self.task, self.delivery, self.run, self.attempt = task, delivery, run, attempt
        self.lease = lease
