"""The request in the main process: publishes what a decision obliges to, then acknowledges.

Hooks of Celery arm a duty; `acknowledge()` discharges it first. If that fails, the message goes
back instead: the decision is in the record, so its next delivery only repeats the publication.
"""

from __future__ import annotations

import uuid
from typing import Any, Final, assert_never

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state as worker_state
from celery.worker.request import Request
from redis.exceptions import RedisError

from taskyard.engine.duties import NOT_DISCHARGED, Duty, defer, duty_of, post_letter, republish
from taskyard.engine.message import stamp_of
from taskyard.engine.yard import Yard
from taskyard.errors import DeadLettered
from taskyard.jobs.outcomes import Decision, Failed, Failure, Retrying
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Ended, Held, Record, Requeue, Stale, Superseded
from taskyard.runner import JobDeferred, JobRetrying, judge
from taskyard.runner.cause import decision_of, encode_cause, plain_failure
from taskyard.transport import QoS
from taskyard.wire.headers import HEADER, Stamp
from taskyard.wire.letters import letter_id
from taskyard.wire.logs import logger

__all__ = ["HOLDER", "JobRequest", "unwrapped"]

log = logger(__name__)

HOLDER: Final = "taskyard_holder"


class JobRequest(Request):  # type: ignore[misc]
    """One delivery of a job, in the main process."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._duty: Duty | None = None
        self._holder = uuid.uuid4().hex
        self._request_dict[HOLDER] = self._holder
        if HEADER not in self._request_dict:
            # Protocol 1 has its headers elsewhere: without its stamp a retry would count as stale.
            self._request_dict[HEADER] = (message.headers or {}).get(HEADER)
        self._stamp = stamp_of(message)

    @property
    def _yard(self) -> Yard:
        yard: Yard = self.task.yard
        return yard

    # -- acknowledge: publish first ------------------------------------------------------------

    def acknowledge(self) -> None:
        """Discharge the duty, then acknowledge; on failure the message goes back."""
        if self.acknowledged:
            return
        if self._duty is not None and not self._discharged(self._duty):
            super().reject(requeue=True)
            return
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Give back; or, where Celery itself drops a message, a letter instead of silence."""
        if requeue or self.acknowledged or self._duty is not None:
            super().reject(requeue=requeue)
            return
        text = "Celery refused the message before it ran, for example for an impossible ETA"
        self._condemn(plain_failure(Category.REJECTED, "rejected", "Rejected", text))

    def _discharged(self, duty: Duty) -> bool:
        try:
            duty.discharge()
        except NOT_DISCHARGED as error:
            log.error(
                "job %s: %s not published, the message goes back: %s",
                self.id,
                duty.name,
                error,
                extra={"action": "publication_failed", "job_id": self.id},
            )
            return False
        self._duty = None
        return True

    # -- outcomes that the child reports -------------------------------------------------------

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Arm what the outcome obliges to; decide where no child could."""
        error = unwrapped(exc_info.exception)
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
                self._duty = defer(self._yard, self.id, self.message, self._stamp, error.wait_us)
            case DeadLettered():
                self._duty = post_letter(self._yard, self.id, self.message)
            case _:
                return

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cut off by a lost connection: the next delivery may begin at once, and nothing counts."""
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

    # -- deaths that the main process sees -----------------------------------------------------

    def _on_lost(self, evidence: str) -> None:
        """The child said nothing of use; the record says what follows, and counts a death."""
        evidence += self._yard.memory.last_words(self.id)
        worker_state.task_ready(self)
        log.error(
            "job %s was lost in its process: %s",
            self.id,
            evidence,
            extra={"action": "child_lost", "job_id": self.id},
        )
        try:
            answer = self._yard.records.lose(self.id, self._holder, evidence)
        except RedisError as error:
            log.error(
                "job %s: death not recorded, Redis is away: %s",
                self.id,
                error,
                extra={"action": "lose_unreachable", "job_id": self.id},
            )
            self.reject(requeue=True)
            return
        if isinstance(answer, Decided):
            self._settle(answer)
            return
        if isinstance(answer, Requeue):
            self._note_counted()
        self.reject(requeue=True)

    def _note_counted(self) -> None:
        """What is counted ends, so its way back needs no wait against a loop without a pause."""
        qos = getattr(getattr(self.message, "channel", None), "qos", None)
        if isinstance(qos, QoS):
            qos.note_counted(self.message.delivery_tag)

    def _on_hard_limit(self, error: TimeLimitExceeded) -> None:
        """The child is killed for overtime: a handler's outcome, so the policy decides."""
        worker_state.task_ready(self)
        text = f"hard time limit exceeded: {error}{self._yard.memory.last_words(self.id)}"
        failure = Failure("timeout", "TimeLimitExceeded", text, "", "")
        try:
            answer = self._judge_overtime(failure)
        except RedisError as lost:
            log.error(
                "job %s: overtime not recorded, Redis is away: %s",
                self.id,
                lost,
                extra={"action": "overtime_unreachable", "job_id": self.id},
            )
            self.reject(requeue=True)
            return
        if answer is None:
            self.reject(requeue=True)
        else:
            self._settle(answer)

    def _judge_overtime(self, failure: Failure) -> Decided | None:
        record = self._yard.records.read(self.id)
        override = None if self._stamp is None else self._stamp.policy
        policy = self._yard.rules.policy(self.task.name, override)
        outcome = judge(failure, record.number("attempts") + 1, policy, self._yard.rules.rng)
        return self._decide(record, outcome)

    def _decide(self, record: Record, outcome: Retrying | Failed) -> Decided | None:
        """Decide in the child's place; None where this delivery holds no attempt (any more)."""
        if record.state is State.NONE:
            # A decision would make a record of its own, without a type, a queue or an epoch.
            return None
        answer = self._yard.records.finish(
            self.id,
            epoch=record.epoch,
            generation=record.generation,
            seq=record.number("seq"),
            holder=self._holder,
            **decision_of(outcome),
        )
        if isinstance(answer, Superseded):
            return None
        decision = Decision.RETRYING if isinstance(outcome, Retrying) else Decision.DEAD_LETTERED
        return Decided(decision, answer.seq, answer.due_us, record.epoch, record.generation)

    def _settle(self, decided: Decided) -> None:
        """Publish and acknowledge a decision that the main process made or found."""
        policy = None if self._stamp is None else self._stamp.policy
        self._duty = duty_of(self._yard, self.id, self.message, decided, policy)
        if decided.decision is Decision.DEAD_LETTERED and not self._told(decided):
            self.reject(requeue=True)
            return
        self.acknowledge()

    def _told(self, decided: Decided) -> bool:
        """Tell a death; False where that failed: the next delivery finds the decision."""
        try:
            self._tell_failure(decided)
        except Exception as error:  # noqa: BLE001 - any result backend's errors; billiard drops them
            log.error(
                "job %s: its death was not told, the message goes back: %s: %s",
                self.id,
                type(error).__name__,
                error,
                extra={"action": "death_not_told", "job_id": self.id},
            )
            return False
        return True

    def _tell_failure(self, decided: Decided) -> None:
        """Celery's side of a death: the result, errbacks, chord and event."""
        cause = self._yard.records.read(self.id).cause
        letter = letter_id(self.id, decided.epoch, decided.generation)
        error = DeadLettered(letter, cause.get("code", ""), cause.get("message", ""))
        self.task.backend.mark_as_failure(
            self.id, error, request=self._context, store_result=self.store_errors
        )
        self.send_event("task-failed", exception=repr(error), traceback="")

    # -- deaths before an attempt --------------------------------------------------------------

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A soft limit is the child's to handle; the hard one was settled in `on_failure`."""
        if soft:
            super().on_timeout(soft, timeout)
        elif not self.acknowledged:
            self._on_hard_limit(TimeLimitExceeded(timeout))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Expired or revoked: a letter instead of silence."""
        if self.acknowledged:
            return
        worker_state.task_ready(self)
        worker_state.revoked.discard(self.id)
        self._already_revoked = True
        outcome = self._revocation_outcome(terminated, expired)
        if terminated:
            self._on_terminated(outcome)
        else:
            self._condemn(outcome)

    def _revocation_outcome(self, terminated: bool, expired: bool) -> Failed:
        if expired:
            text = f"the message expired at {self.expires}"
            return plain_failure(Category.EXPIRED, "expired", "Expired", text)
        text = "revoked by a control command of Celery"
        return plain_failure(Category.REJECTED, "revoked", "Revoked", text)

    def _on_terminated(self, outcome: Failed) -> None:
        """Celery's `revoke(terminate=True)` has killed the child in the middle."""
        try:
            record = self._yard.records.read(self.id)
            answer = self._decide(record, outcome)
        except RedisError as error:
            log.error(
                "job %s: termination not recorded, Redis is away: %s",
                self.id,
                error,
                extra={"action": "terminate_unreachable", "job_id": self.id},
            )
            self.reject(requeue=True)
            return
        if answer is not None:
            self._settle(answer)
        elif record.state in (State.NONE, State.ACCEPTED, State.RETRYING):
            self._condemn(outcome)
        else:
            # Decided by the child just before: its next delivery repeats the publication.
            self.reject(requeue=True)

    def _condemn(self, outcome: Failed) -> None:
        failure = outcome.failure
        try:
            answer = self._yard.records.condemn(
                self.id,
                self._stamp,
                job_type=self.task.name,
                queue=self._yard.source(self.message),
                priority=None,
                cause=encode_cause(outcome),
                code=failure.code,
                category=outcome.category,
                message=failure.message,
            )
        except RedisError as error:
            log.error(
                "job %s: %s not recorded, Redis is away: %s",
                self.id,
                failure.code,
                error,
                extra={"action": "condemn_unreachable", "job_id": self.id},
            )
            self.reject(requeue=True)
            return
        match answer:
            case Decided():
                self._settle(answer)
            case Held(remaining_us):
                self._duty = defer(self._yard, self.id, self.message, self._stamp, remaining_us)
                self.acknowledge()
            case Stale() | Ended():
                self.acknowledge()
            case _:
                assert_never(answer)


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
