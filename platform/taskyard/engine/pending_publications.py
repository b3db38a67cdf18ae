"""Publish what a delivery requires, before the main process acknowledges its message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from taskyard.clock import us_of
from taskyard.deadletters import build_letter
from taskyard.engine.lost_continuations import dead_letter_following
from taskyard.engine.read_message import raw_message
from taskyard.engine.retry_message import NextMessage
from taskyard.engine.strip_credentials import message_to_publish
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.states import State
from taskyard.queues import fitting_priority
from taskyard.records import Record, Reused, Switched
from taskyard.runner.reused_ids import reuse_death, reused_id
from taskyard.runner.settlement_rules import (
    Acknowledge,
    AwaitLease,
    DeferMessage,
    ForwardMessage,
    GiveBack,
    ParkMessage,
    PostContinuations,
    PostLetter,
    PostOwnLetter,
    PublishRetry,
    ReturnHeld,
    Settlement,
    deferred_stamp,
    log_without_letter,
)
from taskyard.runner.stored_decision import death_of
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = ["AT_ONCE_US", "Owing", "PendingPublication", "pending_publication"]

log = logger(__name__)

# Half of the promoter's interval: a shorter wait ends before the delay store would notice.
AT_ONCE_US = us_of(0.1)


@dataclass(frozen=True, slots=True)
class PendingPublication:
    """One message that must be published before an acknowledgement; `name` is for the log."""

    name: str
    publish: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Owing:
    """The delivery that requires a publication: its message, and what it says about its job."""

    yard: WorkerContext
    message: Any
    job_id: str
    job_type: str
    stamp: Stamp | None


def pending_publication(  # noqa: PLR0911 - one match, one answer a case
    settlement: Settlement, owing: Owing
) -> PendingPublication | None:
    """Return the publication that a settlement requires; None if it requires none."""
    match settlement:
        case PublishRetry(stamp, due_us):
            return PendingPublication(
                "the message of a retry", partial(_publish_retry, owing, stamp, due_us)
            )
        case DeferMessage(wait_us) | AwaitLease(wait_us):
            return PendingPublication("a delayed message", partial(_defer, owing, wait_us))
        case ForwardMessage(queue, stamp):
            return PendingPublication(
                f"its message in queue {queue}", partial(_forward, owing, queue, stamp)
            )
        case PostLetter():
            return PendingPublication(
                "a dead letter", partial(_post_letter, owing.yard, owing.job_id, owing.message)
            )
        case PostOwnLetter(reused, outcome):
            return PendingPublication(
                "a dead letter", partial(_post_own_letter, owing, reused, outcome)
            )
        case PostContinuations(outcome):
            return PendingPublication("a dead letter", partial(_post_continuations, owing, outcome))
        case ParkMessage(switch):
            return PendingPublication(
                "a message that a switch holds", partial(_park, owing, switch)
            )
        case Acknowledge() | GiveBack() | ReturnHeld():
            return None
        case _:
            assert_never(settlement)


def _publish_retry(owing: Owing, stamp: Stamp, due_us: int) -> None:
    """Publish the message of the next attempt, now or for its due time."""
    yard, job_id = owing.yard, owing.job_id
    now = yard.records.now_us()
    fresh = stamp.moved(seq=stamp.seq, sent_us=max(now, due_us))
    record = yard.records.read(job_id)
    place, raw = _place(yard, record, owing.message), message_to_publish(owing.message)
    kept = NextMessage.of(record)
    if kept is not None:
        # Celery's own tasks name a queue as the broker does.
        place["queue"], raw = yard.queue_of(kept.queue), kept.message
    if due_us - now <= AT_ONCE_US:
        yard.publisher.publish(raw, job_id=job_id, stamp=fresh, strip=("eta",), **place)
    else:
        yard.publisher.publish_later(raw, job_id=job_id, stamp=fresh, due_us=due_us, **place)


def _defer(owing: Owing, wait_us: int) -> None:
    """Publish the same message again for a later time."""
    yard = owing.yard
    now = yard.records.now_us()
    record = yard.records.read(owing.job_id)
    yard.publisher.publish_later(
        message_to_publish(owing.message),
        job_id=owing.job_id,
        stamp=deferred_stamp(owing.stamp, record, now),
        due_us=now + wait_us,
        **_place(yard, record, owing.message),
    )


def _park(owing: Owing, switch: Switched) -> None:
    """Publish the same message again, to come back when the switch has ended."""
    yard = owing.yard
    now = yard.records.now_us()
    record = yard.records.read(owing.job_id)
    yard.publisher.park(
        message_to_publish(owing.message),
        job_id=owing.job_id,
        stamp=deferred_stamp(owing.stamp, record, now),
        switch=str(switch.field),
        until_us=switch.until_us,
        **_place(yard, record, owing.message),
    )
    # At RabbitMQ this happens again every 30 s.
    log.debug(
        "job %s waits in the delay store: the switch %r is on",
        owing.job_id,
        str(switch.field),
        extra={"action": "message_parked", "job_id": owing.job_id, "switch": str(switch.field)},
    )


def _forward(owing: Owing, queue: str, stamp: Stamp) -> None:
    """Publish the message in the queue to which an operator has moved its job, and confirm it.

    A worker that dies in between leaves the message here. It is then forwarded again, with the same
    stamp, or it is stale.
    """
    yard, job_id = owing.yard, owing.job_id
    record = yard.records.read(job_id)
    # Celery's own retry may have changed the message, and the retry may not be published yet.
    kept = NextMessage.of(record)
    yard.publisher.publish(
        message_to_publish(owing.message) if kept is None else kept.message,
        queue=queue,
        priority=fitting_priority(_priority(record), yard.settings.queues.get(queue)),
        job_id=job_id,
        stamp=stamp.moved(seq=stamp.seq, sent_us=yard.records.now_us()),
        strip=("eta",),
    )
    yard.records.requeued(job_id, stamp.epoch, stamp.generation)
    log.info(
        "job %s: an operator has moved it, so its message goes to queue %s",
        job_id,
        queue,
        extra={"action": "message_forwarded", "job_id": job_id, "queue": queue},
    )


def _post_letter(yard: WorkerContext, job_id: str, message: Any) -> None:
    """Publish the dead letter that the record's decision requires."""
    record = yard.records.read(job_id)
    if record.state is State.DEAD_LETTERED:
        yard.letters.post(build_letter(record, raw_message(message)))
    # In any other state an operator has replayed or ended the job, who needed this letter for that:
    # so the letter is published already.


def _post_own_letter(owing: Owing, reused: Reused, outcome: Failed | None) -> None:
    """Store a record for a message that uses another job's id, then publish its dead letter."""
    yard, name = owing.yard, owing.job_type
    job_id = reused_id(owing.job_id, name, reused.epoch)
    yard.records.attempts.dead_letter(
        job_id,
        None,
        job_type=name,
        queue=yard.source(owing.message),
        **death_of(reuse_death(owing.job_id, name, reused, outcome)),
    )
    _post_letter(yard, job_id, owing.message)


def _post_continuations(owing: Owing, outcome: Failed) -> None:
    """Publish dead letters of a completed job's continuations that could not be published."""
    why = outcome.failure.message
    if not dead_letter_following(owing.yard, owing.job_id, owing.message, why):
        log_without_letter(owing.job_id, State.COMPLETED, outcome)


def _place(yard: WorkerContext, record: Record, message: Any) -> dict[str, Any]:
    return {"queue": yard.home(record, message), "priority": _priority(record)}


def _priority(record: Record) -> int | None:
    priority = record.fields.get("priority")
    return int(priority) if priority else None
