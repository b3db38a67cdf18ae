"""What the main process decides where no child could: lost, over time, expired, revoked.

It asks the same scripts as a child would, so a decision that the child made just before stands.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from billiard.exceptions import TimeLimitExceeded
from celery.worker import state as worker_state
from celery.worker.request import Request
from redis.exceptions import RedisError

from taskyard.engine.duties import Duty, defer, duty_of
from taskyard.engine.message import was_delivered_before
from taskyard.engine.own_letters import reused_duty
from taskyard.engine.yard import Yard
from taskyard.errors import DeadLettered
from taskyard.jobs.outcomes import Decision, Failed, Failure, Retrying
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Ended, Held, NotHeld, Record, Requeue, Reused, Stale
from taskyard.runner import judge
from taskyard.runner.cause import death_of, decide_for, plain_failure
from taskyard.transport import QoS
from taskyard.wire.headers import Stamp
from taskyard.wire.letters import letter_id
from taskyard.wire.logs import logger

__all__ = ["RECORDS", "Deaths"]

log = logger(__name__)

RECORDS: Final = "the records of jobs not reached"
_ANNOUNCE: Final = "a death not announced"
# A dead worker leaves as many as it had processes, and each waits for at most one lease.
_MOST_LEASES: Final = 256
# A lease that has ended must not seem to run by a rounding of the timer.
_LEASE_MARGIN_S: Final = 0.1


class Deaths(Request):  # type: ignore[misc]
    """The deaths of a delivery; its subclass publishes the duty, then acknowledges."""

    _duty: Duty | None
    _held = False
    _holder: str
    _stamp: Stamp | None

    @property
    def _yard(self) -> Yard:
        yard: Yard = self.task.yard
        return yard

    # -- a process that ended ------------------------------------------------------------------

    def _on_lost(self, evidence: str) -> None:
        """The child said nothing of use; the record says what follows, and counts a death."""
        evidence += self._yard.memory.last_words(self.id)
        worker_state.task_ready(self)
        try:
            answer = self._yard.records.lose(self.id, self._holder, evidence)
        except RedisError as error:
            self._unrecorded("lose_unreachable", error)
            return
        self._tell_lost(answer, evidence)
        if isinstance(answer, Decided):
            self._settle(answer)
            return
        if isinstance(answer, Requeue):
            self._note_counted()
        self.reject(requeue=True)

    def _tell_lost(self, answer: Requeue | NotHeld | Decided, evidence: str) -> None:
        facts = {"action": "child_lost", "job_id": self.id}
        if isinstance(answer, NotHeld):
            # Its outcome was recorded, and only its words to this process were not read any more.
            told = "job %s: its process ended, but the record, %s, waits for it no longer: %s"
            log.info(told, self.id, answer.state, evidence, extra=facts)
        else:
            log.error("job %s was lost in its process: %s", self.id, evidence, extra=facts)

    def _note_counted(self) -> None:
        """What is counted ends, so its way back needs no wait against a loop without a pause."""
        qos = self._own_qos()
        if qos is not None:
            qos.note_counted(self.message.delivery_tag)

    def _own_qos(self) -> QoS | None:
        """That of Taskyard's transport; None at another one."""
        qos = getattr(getattr(self.message, "channel", None), "qos", None)
        return qos if isinstance(qos, QoS) else None

    # -- overtime ------------------------------------------------------------------------------

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A soft limit is the child's to handle; the hard one was settled in `on_failure`."""
        if soft:
            super().on_timeout(soft, timeout)
        elif not self.acknowledged:
            self._on_hard_limit(TimeLimitExceeded(timeout))

    def _on_hard_limit(self, error: TimeLimitExceeded) -> None:
        """The child is killed for overtime: a handler's outcome, so the policy decides."""
        worker_state.task_ready(self)
        text = f"hard time limit exceeded: {error}{self._yard.memory.last_words(self.id)}"
        failure = Failure("timeout", "TimeLimitExceeded", text, "", "")
        try:
            answer = self._judge_overtime(failure)
        except RedisError as lost:
            self._unrecorded("overtime_unreachable", lost)
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

    # -- expired or revoked --------------------------------------------------------------------

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
            self._unrecorded("terminate_unreachable", error)
            return
        if answer is not None:
            self._settle(answer)
        elif record.state in (State.NONE, State.ACCEPTED, State.RETRYING):
            self._condemn(outcome)
        else:
            # Decided by the child just before: its next delivery repeats the publication.
            self.reject(requeue=True)

    def _condemn(self, outcome: Failed) -> None:
        """Let a message die that no attempt could decide about."""
        try:
            answer = self._yard.records.condemn(
                self.id,
                self._stamp,
                job_type=self.task.name,
                queue=self._yard.source(self.message),
                priority=None,
                **death_of(outcome),
            )
        except RedisError as error:
            self._unrecorded("condemn_unreachable", error)
            return
        match answer:
            case Decided():
                self._settle(answer)
            case Held(remaining_us):
                self._await_lease(remaining_us)
            case Reused():
                named = {"given": self.id, "name": self.task.name}
                self._duty = reused_duty(self._yard, self.message, answer, outcome, **named)
                self.acknowledge()
            case Stale() | Ended():
                self.acknowledge()
            case _:
                assert_never(answer)

    # -- the lease of another attempt ----------------------------------------------------------

    def _await_lease(self, remaining_us: int) -> None:
        """Let the message wait until the lease of another attempt is over.

        A message that came back may be that of a dead worker. In the delay store it would lose its
        place in the queue, and its job would wait for all that came later: this worker keeps it.
        """
        if self._held or self.acknowledged:
            return
        holding = self._yard.holding
        if holding is None or not was_delivered_before(self.message):
            self._defer(remaining_us)
            return
        self._held = True
        wait_s = remaining_us / 1_000_000 + _LEASE_MARGIN_S
        log.info(
            "job %s: its message came back while the lease of another attempt runs; this worker "
            "keeps the message for %.1f s, until that lease is over",
            self.id,
            wait_s,
            extra={"action": "lease_awaited", "job_id": self.id, "wait_s": wait_s},
        )
        holding.hold(self.message, self._after_lease, wait_s, most=_MOST_LEASES)

    def _after_lease(self) -> None:
        """Return the message as the next one; to the delay store where the other attempt lives."""
        self._held = False
        try:
            record = self._yard.records.read(self.id)
            remaining_us = record.number("lease_until") - self._yard.records.now_us()
        except RedisError as error:
            self._unrecorded("lease_unreachable", error)
            return
        if record.state is State.RUNNING and remaining_us > 0:
            self._defer(remaining_us)
            return
        log.info(
            "job %s: the lease of its earlier attempt is over, its message is the next of its "
            "queue",
            self.id,
            extra={"action": "lease_over", "job_id": self.id},
        )
        qos = self._own_qos()
        if qos is not None:
            qos.note_unbegun(self.message.delivery_tag)
        self.reject(requeue=True)

    def _defer(self, wait_us: int) -> None:
        self._duty = defer(self._yard, self.id, self.message, self._stamp, wait_us)
        self.acknowledge()

    # -- the decision, and who is told of it ---------------------------------------------------

    def _decide(self, record: Record, outcome: Retrying | Failed) -> Decided | None:
        """Decide in the child's place; None where this delivery holds no attempt (any more)."""
        if record.state is State.NONE:
            # A decision would make a record of its own, without a type, a queue or an epoch.
            return None
        finish = self._yard.records.finish
        return decide_for(finish, record, outcome, job_id=self.id, holder=self._holder)

    def _settle(self, decided: Decided) -> None:
        """Publish and acknowledge a decision that the main process made or found."""
        policy = None if self._stamp is None else self._stamp.policy
        self._duty = duty_of(self._yard, self.id, self.message, decided, policy)
        if decided.decision is Decision.DEAD_LETTERED and not self._told(decided):
            return
        self.acknowledge()

    def _told(self, decided: Decided) -> bool:
        """Announce a death; where that fails the message goes back and finds the decision."""
        try:
            self._tell_failure(decided)
        except Exception as error:  # noqa: BLE001 - any result backend's errors; billiard drops them
            self._give_back(_ANNOUNCE, "death_not_told", error)
            return False
        self._yard.refusals.worked(_ANNOUNCE, self.id)
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

    def _unrecorded(self, action: str, error: RedisError) -> None:
        """Nothing was decided: the message goes back, and its next delivery is asked again."""
        self._give_back(RECORDS, action, error)

    def _give_back(self, what: str, action: str, error: BaseException) -> None:
        """Return the message after a wait that grows while `what` fails; logged once a cause."""
        facts = {"job_id": self.id}
        wait_s = self._yard.refusals.refused(what, error, action=action, item=self.id, facts=facts)
        self._held = True

        def give_back() -> None:
            self._held = False
            self.reject(requeue=True)

        if self._yard.holding is None:
            give_back()
        else:
            self._yard.holding.hold(self.message, give_back, wait_s)
