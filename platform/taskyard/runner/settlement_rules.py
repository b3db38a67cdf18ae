"""Decide what must be published when a delivery ends, and log it.

This is the only place for that decision. Workers, existing apps and `taskyard.testing` call it;
they differ only in how they publish. Everything is published before the message is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from taskyard.errors import DeadLettered
from taskyard.jobs.attempt_outcomes import Decision, Failed
from taskyard.jobs.retry_policy import Category
from taskyard.jobs.states import State
from taskyard.records import (
    Decided,
    Ended,
    Forward,
    Held,
    NotHeld,
    Record,
    Requeue,
    Reused,
    Stale,
    Switched,
)
from taskyard.runner.child_exceptions import (
    JobDeferred,
    JobForwarded,
    JobIdReused,
    JobRetrying,
    JobSwitchedOff,
)
from taskyard.switches import Mode, SwitchField
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = [
    "Acknowledge",
    "AwaitLease",
    "DeferMessage",
    "Delivered",
    "End",
    "ForwardMessage",
    "GiveBack",
    "ParkMessage",
    "PostContinuations",
    "PostLetter",
    "PostOwnLetter",
    "PublishRetry",
    "ReturnHeld",
    "Settlement",
    "by_operator",
    "deferred_stamp",
    "log_without_letter",
    "reported_end",
    "settle",
    "superseded_by",
]

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class PublishRetry:
    """Publish the message of the job's next attempt, due at `due_us` (microseconds since 1970)."""

    stamp: Stamp
    due_us: int


@dataclass(frozen=True, slots=True)
class DeferMessage:
    """Publish the same message again, to be delivered in `wait_us` microseconds."""

    wait_us: int


@dataclass(frozen=True, slots=True)
class ForwardMessage:
    """Publish the same message to another queue, where an operator has moved the job.

    Then confirm it in the record. `stamp` is the message's position there.
    """

    queue: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class AwaitLease:
    """Keep the message in this worker until the lease of another attempt ends, in `wait_us`.

    The message was delivered before, so it may be that of a dead worker. In the delay store it
    would lose its position in the queue, and its job would wait for all later ones.
    """

    wait_us: int


@dataclass(frozen=True, slots=True)
class PostLetter:
    """Publish the dead letter that the job's record holds."""


@dataclass(frozen=True, slots=True)
class PostOwnLetter:
    """Publish a dead letter of this message only, because its id belongs to another job.

    `outcome` is another cause of death, or None if the message was valid.
    """

    reused: Reused
    outcome: Failed | None


@dataclass(frozen=True, slots=True)
class PostContinuations:
    """The job is completed, but some of its continuations were not published.

    Publish a dead letter for each of those.
    """

    outcome: Failed


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Acknowledge the message; there is nothing to publish."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return the message to its queue.

    `counted` says whether the record limits how often this happens.
    """

    counted: bool


@dataclass(frozen=True, slots=True)
class ReturnHeld:
    """Take no more from the message's queue, and put the message back as its next one.

    The switch holds the whole queue, so that the message keeps its position there.
    """

    switch: Switched


@dataclass(frozen=True, slots=True)
class ParkMessage:
    """Publish the same message again, to be delivered when the switch ends.

    The switch holds only some jobs of the queue, so that the worker continues to take the others.
    """

    switch: Switched


Settlement = (
    PublishRetry
    | DeferMessage
    | ForwardMessage
    | AwaitLease
    | PostLetter
    | PostOwnLetter
    | PostContinuations
    | Acknowledge
    | GiveBack
    | ReturnHeld
    | ParkMessage
)
End = Decided | Held | Reused | Stale | Ended | Forward | Requeue | NotHeld | Switched


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery that has ended, with everything known about its end.

    `outcome` is the cause of death that the main process decided, `lost` says how the process
    of the job ended. A message that was not `delivered_before` has no position in its queue to
    keep.
    """

    job_id: str
    stamp: Stamp | None
    outcome: Failed | None = None
    lost: str = ""
    delivered_before: bool = False


def settle(  # noqa: C901, PLR0911 - one match, one answer a case
    end: End, delivered: Delivered
) -> Settlement:
    """Return what the main process must publish or do when this delivery has ended."""
    _log(end, delivered)
    outcome = delivered.outcome
    match end:
        case Decided(decision=Decision.RETRYING):
            return PublishRetry(_next_stamp(end, delivered), end.due_us)
        case Decided():
            return PostLetter()
        case Held(remaining_us):
            # The job runs under another message; this one must wait for its end.
            wait = AwaitLease if delivered.delivered_before else DeferMessage
            return wait(remaining_us)
        case Forward():
            return ForwardMessage(end.queue, _next_stamp(end, delivered))
        case Reused():
            return PostOwnLetter(end, outcome)
        case Ended(state):
            return _after_end(state, outcome)
        case Stale():
            return Acknowledge()
        case Switched():
            return ReturnHeld(end) if end.holds_queue else ParkMessage(end)
        case Requeue():
            return GiveBack(counted=True)
        case NotHeld():
            # This delivery holds no attempt (decided before, or never begun). When the message is
            # delivered again, the record is asked again.
            return GiveBack(counted=False)
        case _:
            assert_never(end)


def _next_stamp(end: Decided | Forward, delivered: Delivered) -> Stamp:
    """Return the stamp of the job's next message, with the policy of this one."""
    policy = None if delivered.stamp is None else delivered.stamp.policy
    return Stamp(end.epoch, end.generation, end.seq, policy=policy)


def _after_end(state: State, outcome: Failed | None) -> Settlement:
    if state is not State.COMPLETED:
        return Acknowledge()
    if outcome is None:
        # An operator has completed the job of an attempt that ran. The next delivery finds the
        # result and continues the chain with it.
        return GiveBack(counted=False)
    # It came back too often because its continuations could not be published.
    return PostContinuations(outcome) if _is_poison(outcome) else Acknowledge()


def reported_end(error: BaseException) -> End | None:  # noqa: PLR0911 - one answer a case
    """Return what the child process of a job type reported by raising `error`.

    None if there is nothing to publish.
    """
    match error:
        case JobRetrying():
            place = error.seq, error.due_us, error.epoch, error.generation
            return Decided(Decision.RETRYING, *place)
        case JobDeferred():
            return Held(error.wait_us)
        case JobForwarded():
            return Forward(error.queue, error.epoch, error.generation, error.seq)
        case JobIdReused():
            return Reused(error.job_type, State(error.state), error.epoch)
        case JobSwitchedOff():
            return Switched(SwitchField.parse(error.field), error.until_us, Mode(error.mode))
        case DeadLettered():
            # The letter is built from the record, which has the queue.
            return Decided(Decision.DEAD_LETTERED, 0, 0, 0, 0)
        case _:
            return None


def superseded_by(state: State) -> State | None:
    """Return the state if more is to do for the message of an attempt whose outcome is dropped.

    It returns to its queue if the job is completed; `by_operator` says what else.
    """
    return state if state is State.COMPLETED else by_operator(state)


def by_operator(state: State) -> State | None:
    """Return the state if an operator has ended the job without a result, which Celery must hear.

    Celery calls both such ends a revocation.
    """
    return state if state in (State.CANCELLED, State.ABORTED) else None


def deferred_stamp(stamp: Stamp | None, record: Record, now_us: int) -> Stamp:
    """Return the stamp of a message that waits: its own, or that of the job's first message."""
    own = Stamp(record.epoch or now_us) if stamp is None else stamp
    return own.moved(seq=own.seq, sent_us=own.sent_us or own.epoch)


def _is_poison(outcome: Failed) -> bool:
    return outcome.category is Category.POISON


def _log(end: End, delivered: Delivered) -> None:
    job_id, outcome = delivered.job_id, delivered.outcome
    match end:
        case NotHeld(state) if delivered.lost:
            # Its outcome was recorded, and only the report to this process was not read.
            log.info(
                "job %s is already recorded as %s; its process ended after that, which "
                "changes nothing: %s",
                job_id,
                state,
                delivered.lost,
                extra={"action": "child_lost", "job_id": job_id},
            )
        case Requeue() | Decided() | Forward() if delivered.lost:
            log.error(
                "the process of job %s died; its record decides about a retry or a dead letter: %s",
                job_id,
                delivered.lost,
                extra={"action": "child_lost", "job_id": job_id},
            )
        case Stale(state) | Ended(state) if outcome is not None and not (
            state is State.COMPLETED and _is_poison(outcome)
        ):
            log_without_letter(job_id, state, outcome)


def log_without_letter(job_id: str, state: State, outcome: Failed) -> None:
    """Log that a message is dropped without a dead letter, because its job is already over."""
    log.error(
        "job %s is already %s, so this other message of it is dropped without a dead letter: %s",
        job_id,
        state,
        outcome.failure.message,
        extra={"action": "ended_without_letter", "job_id": job_id},
    )
