"""What the main process must publish before it may acknowledge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.deadletters import build_letter
from taskyard.engine.message import raw_message
from taskyard.engine.next_message import NextMessage
from taskyard.engine.yard import Yard
from taskyard.errors import TaskyardError
from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Decided, Record
from taskyard.wire.headers import Stamp

__all__ = ["NOT_DISCHARGED", "Duty", "defer", "duty_of", "post_letter", "republish"]

# What a duty raises that could not be discharged: the message goes back, its next delivery repeats.
NOT_DISCHARGED: Final = (TaskyardError, RedisError, OperationalError, OSError)
# Half of the promoter's interval: a shorter wait is over before the delay store would notice.
_AT_ONCE_US = 100_000


@dataclass(frozen=True, slots=True)
class Duty:
    """A publication owed; `name` is for the log."""

    name: str
    discharge: Callable[[], None]


def duty_of(yard: Yard, job_id: str, message: Any, decided: Decided, policy: Any = None) -> Duty:
    """The publication that a decision obliges to."""
    if decided.decision is Decision.RETRYING:
        stamp = Stamp(decided.epoch, decided.generation, decided.seq, policy=policy)
        return republish(yard, job_id, message, stamp, decided.due_us)
    return post_letter(yard, job_id, message)


def republish(yard: Yard, job_id: str, message: Any, stamp: Stamp, due_us: int) -> Duty:
    """The next attempt's message, now or when it is due."""

    def discharge() -> None:
        now = yard.records.now_us()
        fresh = stamp.moved(seq=stamp.seq, sent_us=max(now, due_us))
        record = yard.records.read(job_id)
        place, raw = _place(yard, record, message), raw_message(message)
        kept = NextMessage.of(record)
        if kept is not None:
            # Celery's own tasks name a queue as the broker does.
            place["queue"], raw = yard.queue_of(kept.queue), kept.message
        if due_us - now <= _AT_ONCE_US:
            yard.publisher.publish(raw, job_id=job_id, stamp=fresh, strip=("eta",), **place)
        else:
            yard.publisher.publish_later(raw, job_id=job_id, stamp=fresh, due_us=due_us, **place)

    return Duty("retry", discharge)


def defer(yard: Yard, job_id: str, message: Any, stamp: Stamp | None, wait_us: int) -> Duty:
    """The same message again, later."""

    def discharge() -> None:
        now = yard.records.now_us()
        record = yard.records.read(job_id)
        own = Stamp(record.epoch or now) if stamp is None else stamp
        kept = own.moved(seq=own.seq, sent_us=own.sent_us or own.epoch)
        yard.publisher.publish_later(
            raw_message(message),
            job_id=job_id,
            stamp=kept,
            due_us=now + wait_us,
            **_place(yard, record, message),
        )

    return Duty("defer", discharge)


def post_letter(yard: Yard, job_id: str, message: Any) -> Duty:
    """The dead letter of a record that was decided so."""

    def discharge() -> None:
        record = yard.records.read(job_id)
        if record.state is not State.DEAD_LETTERED:
            # Replayed or ended since: this death's letter was there, or nobody could have.
            return
        yard.letters.post(build_letter(record, raw_message(message)))

    return Duty("letter", discharge)


def _place(yard: Yard, record: Record, message: Any) -> dict[str, Any]:
    priority = record.fields.get("priority")
    return {
        "queue": yard.home(record, message),
        "priority": int(priority) if priority else None,
    }
