"""Settle a delivery that ends: ask the record, publish, acknowledge.

The main process calls the same scripts as a child, so a decision that the child made just before
stays.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, assert_never

from redis.exceptions import RedisError

from taskyard.clock import seconds_of
from taskyard.engine.pending_publications import Owing, PendingPublication, pending_publication
from taskyard.engine.ports import (
    HeldMessage,
    Messages,
    NoOutcome,
    OverTime,
    Report,
    Reported,
    Unanswered,
    WayBack,
)
from taskyard.engine.publish_errors import PUBLISH_ERRORS
from taskyard.engine.read_message import was_delivered_before
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.attempt_outcomes import Decision, Failed, Failure
from taskyard.jobs.states import State
from taskyard.records import Decided, Ended, Forward, NotHeld, Switched
from taskyard.runner import judge
from taskyard.runner.settlement_rules import (
    AwaitLease,
    DeferMessage,
    Delivered,
    End,
    GiveBack,
    ParkMessage,
    ReturnHeld,
    Settlement,
    by_operator,
    settle,
)
from taskyard.runner.stored_decision import death_of, decide_for
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = ["RECORDS", "Delivery", "Settling"]

log = logger(__name__)

RECORDS: Final = "the records of jobs could not be reached"
_ANNOUNCE: Final = "a job's death was not reported to Celery (result, errbacks, events)"
_ANNOUNCE_END: Final = "the end of a cancelled or aborted job was not reported to Celery"
# A dead worker leaves as many as it had processes, and each waits for at most one lease.
_MOST_LEASES: Final = 256
# RabbitMQ closes the channel of a worker that holds a message for half an hour, by default.
_LONGEST_LEASE_S: Final = 300.0
# An ended lease must not seem to run because the timer rounds.
_LEASE_MARGIN_S: Final = 0.1


class Delivery(HeldMessage, Protocol):
    """The delivery that a request handles."""

    id: str
    acknowledged: bool

    def announce_death(self, decided: Decided) -> None:
        """Report a job's death as Celery does: result, errbacks, chord and event.

        Raises the errors of Celery's report.
        """

    def announce_ended(self, state: State) -> None:
        """Report that an operator has ended the job, as Celery reports a revocation; acknowledge.

        Raises the errors of Celery's report.
        """


class Settling:
    """Decides and publishes the end of one delivery.

    `holder` names the delivery's attempt in the record, `stamp` is that of its message.
    """

    def __init__(
        self,
        delivery: Delivery,
        yard: WorkerContext,
        job_type: str,
        holder: str,
        stamp: Stamp | None,
    ) -> None:
        self.pending: PendingPublication | None = None
        # While the message waits to be given back, nothing else may end it.
        self.waits = False
        # The record could not be asked, or another attempt of the job runs.
        self.undecided = False
        self.holder, self.stamp = holder, stamp
        self._delivery, self._yard, self._job_type = delivery, yard, job_type

    def owe(self, settlement: Settlement) -> None:
        """Note what must be published before the message is acknowledged."""
        delivery = self._delivery
        self.pending = pending_publication(
            settlement,
            Owing(self._yard, delivery.message, delivery.id, self._job_type, self.stamp),
        )

    def owe_for(self, end: End) -> None:
        """Note what the end that the child reported requires to be published."""
        settlement = self._settlement(end)
        match settlement:
            case AwaitLease(wait_us):
                self._await_lease(wait_us)
            case ReturnHeld(switch):
                self._return_held(switch)
            case _:
                self.owe(settlement)

    def publish(self) -> bool:
        """Publish what the decision requires; if that fails, return the message to its queue."""
        pending = self.pending
        if pending is None:
            return True
        what = f"{pending.name} was not published"
        try:
            pending.publish()
        except PUBLISH_ERRORS as error:
            self.give_back(what, "publication_failed", error)
            return False
        self.pending = None
        self._yard.backoff.succeeded(what, self._delivery.id)
        return True

    # -- what ended it -------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Settle the delivery as the report says.

        The request acknowledges a delivery whose outcome is already recorded.
        """
        match report:
            case Reported(end):
                if end is not None:
                    self.owe_for(end)
            case NoOutcome(evidence):
                self.lost(evidence)
            case OverTime(limit):
                self.overtime(limit)
            case Unanswered(error):
                self.give_back(RECORDS, "records_unreachable", error)
            case _:
                assert_never(report)

    def lost(self, evidence: str) -> None:
        """Settle a delivery whose process reported nothing useful.

        The record decides, and counts a death.
        """
        evidence += self._yard.memory.last_words(self._delivery.id)
        try:
            answer = self._yard.records.attempts.lose(self._delivery.id, self.holder, evidence)
        except RedisError as error:
            self.give_back(RECORDS, "lose_unreachable", error)
            return
        self._conclude(answer, lost=evidence)

    def overtime(self, limit: str) -> None:
        """Settle a delivery whose process was killed at its hard time limit; the policy decides."""
        text = f"hard time limit exceeded: {limit}{self._yard.memory.last_words(self._delivery.id)}"
        try:
            answer = self._judge(Failure("timeout", "TimeLimitExceeded", text, "", ""))
        except RedisError as error:
            self.give_back(RECORDS, "overtime_unreachable", error)
            return
        self._conclude(answer)

    def terminated(self, outcome: Failed) -> None:
        """Settle a delivery whose process Celery's `revoke(terminate=True)` killed."""
        try:
            record = self._yard.records.read(self._delivery.id)
            answer = self._decide(record, outcome)
        except RedisError as error:
            self.give_back(RECORDS, "terminate_unreachable", error)
            return
        before = (State.NONE, State.ACCEPTED, State.RETRYING)
        if isinstance(answer, NotHeld) and record.state in before:
            self.dead_letter(outcome)
        else:
            self._conclude(answer)

    def dead_letter(self, outcome: Failed) -> None:
        """Dead-letter a message about which no attempt could decide."""
        try:
            answer = self._yard.records.attempts.dead_letter(
                self._delivery.id,
                self.stamp,
                job_type=self._job_type,
                queue=self._yard.source(self._delivery.message),
                **death_of(outcome),
            )
        except RedisError as error:
            self.give_back(RECORDS, "condemn_unreachable", error)
            return
        self._conclude(answer, outcome)

    # -- what follows --------------------------------------------------------------------------

    def _judge(self, failure: Failure) -> Decided | NotHeld | Forward:
        record = self._yard.records.read(self._delivery.id)
        override = None if self.stamp is None else self.stamp.policy
        policy = self._yard.rules.policy(self._job_type, override)
        outcome = judge(failure, record.number("attempts") + 1, policy, self._yard.rules.rng)
        return self._decide(record, outcome)

    def _decide(self, record: Any, outcome: Any) -> Decided | NotHeld | Forward:
        finish = self._yard.records.attempts.finish
        return decide_for(finish, record, outcome, job_id=self._delivery.id, holder=self.holder)

    def _conclude(self, end: End, outcome: Failed | None = None, *, lost: str = "") -> None:
        settlement = self._settlement(end, outcome, lost)
        self.undecided = isinstance(settlement, AwaitLease | DeferMessage)
        match settlement:
            case GiveBack(counted):
                self._go_back(WayBack.COUNTED if counted else WayBack.UNCOUNTED)
                return
            case AwaitLease(wait_us):
                self._await_lease(wait_us)
                return
        self.owe(settlement)
        match end:
            case Decided(decision=Decision.DEAD_LETTERED) if not self._announced(end):
                return
            case Ended(state) if by_operator(state) is not None:
                self.ended(state)
                return
        self._delivery.acknowledge()

    def _settlement(self, end: End, outcome: Failed | None = None, lost: str = "") -> Settlement:
        before = was_delivered_before(self._delivery.message)
        return settle(end, Delivered(self._delivery.id, self.stamp, outcome, lost, before))

    @property
    def _messages(self) -> Messages | None:
        """Return the messages that this worker holds; None without a consumer."""
        ports = self._yard.ports
        return None if ports is None else ports.messages

    def _go_back(self, way: WayBack) -> None:
        if self._messages is None:
            self._delivery.reject(requeue=True)
        else:
            self._messages.give_back(self._delivery, way)

    # -- a switch that holds the queue -------------------------------------------------------

    def _return_held(self, switch: Switched) -> None:
        """Return the message to its queue, from which this worker takes no more for now.

        A worker that takes the message in another way than by its queue cannot stop that, and
        would get it again at once: so it parks the message.
        """
        messages = self._messages
        if self.waits or self._delivery.acknowledged:
            return
        self.waits = True
        if messages is None:
            self._return_as_next()
        elif not messages.return_held(self._delivery.message, self._return_as_next):
            self.waits = False
            self.owe(ParkMessage(switch))

    # -- the lease of another attempt ----------------------------------------------------------

    def _await_lease(self, remaining_us: int) -> None:
        if self.waits or self._delivery.acknowledged:
            return
        messages = self._messages
        wait_s = seconds_of(remaining_us) + _LEASE_MARGIN_S
        if messages is None or wait_s > _LONGEST_LEASE_S:
            self._defer(remaining_us)
            return
        self.waits = True
        log.info(
            "job %s: its message was delivered again while another attempt has the lease; "
            "this worker keeps the message for %.1f s, until that lease ends",
            self._delivery.id,
            wait_s,
            extra={"action": "lease_awaited", "job_id": self._delivery.id, "wait_s": wait_s},
        )
        messages.hold(
            self._delivery.message,
            self._after_lease,
            wait_s,
            most=_MOST_LEASES,
            on_drain=self._return_as_next,
        )

    def _after_lease(self) -> None:
        """Put the message back after the lease, or delay it if the other attempt still runs."""
        self.waits = False
        job_id = self._delivery.id
        try:
            record = self._yard.records.read(job_id)
            remaining_us = record.number("lease_until") - self._yard.records.now_us()
        except RedisError as error:
            self.give_back(RECORDS, "lease_unreachable", error)
            return
        if record.state is State.RUNNING and remaining_us > 0:
            self._defer(remaining_us)
            return
        log.info(
            "job %s: the lease of its earlier attempt has ended, so its message returns to the "
            "front of its queue, and the next free worker runs the job",
            job_id,
            extra={"action": "lease_over", "job_id": job_id},
        )
        self._return_as_next()

    def _return_as_next(self) -> None:
        self.waits = False
        self._go_back(WayBack.AS_IT_CAME)

    def _defer(self, wait_us: int) -> None:
        self.owe(DeferMessage(wait_us))
        self._delivery.acknowledge()

    def _announced(self, decided: Decided) -> bool:
        """Report a death to Celery.

        If that fails, the message returns to its queue, and its next delivery finds the
        decision.
        """
        try:
            self._delivery.announce_death(decided)
        except Exception as error:  # noqa: BLE001 - any result backend's errors; billiard drops them
            self.give_back(_ANNOUNCE, "death_not_told", error)
            return False
        self._yard.backoff.succeeded(_ANNOUNCE, self._delivery.id)
        return True

    def ended(self, state: State) -> None:
        """Report to Celery that an operator has ended the job, and acknowledge the message.

        If that fails, the message returns to its queue, and its next delivery reports it again. The
        message of a completed job returns too: its next delivery finds the result.
        """
        if state is State.COMPLETED:
            self._go_back(WayBack.UNCOUNTED)
            return
        try:
            self._delivery.announce_ended(state)
        except Exception as error:  # noqa: BLE001 - any result backend's errors; billiard drops them
            self.give_back(_ANNOUNCE_END, "end_not_reported", error)
        else:
            self._yard.backoff.succeeded(_ANNOUNCE_END, self._delivery.id)

    def give_back(self, what: str, action: str, error: BaseException) -> None:
        """Put the message back after a wait, because `what` failed; the wait grows each time.

        Each cause is logged once.
        """
        job_id = self._delivery.id
        facts = {"job_id": job_id}
        wait_s = self._yard.backoff.failed(what, error, action=action, item=job_id, facts=facts)
        self.waits = self.undecided = True

        def give_back() -> None:
            self.waits = False
            self._go_back(WayBack.UNCOUNTED)

        if self._messages is None:
            give_back()
        else:
            self._messages.hold(self._delivery.message, give_back, wait_s)
