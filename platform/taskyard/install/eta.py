"""A message with a date: it waits at the broker, not in a worker that may end before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from taskyard.clock import to_us
from taskyard.engine.message import job_id_of, raw_message, stamp_of, task_of
from taskyard.install.marks import ETA
from taskyard.install.yard import AppYard
from taskyard.wire.headers import Stamp

__all__ = ["due_ahead_us", "put_off"]

# What is due within this stays in the worker: nothing gains from the way to the delay store.
_AT_ONCE_US: Final = 1_000_000


def due_ahead_us(message: Any) -> int | None:
    """When the message is due, if that is more than a second ahead; None for a date of no sense."""
    eta = (message.headers or {}).get("eta")
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
    except ValueError:
        return None
    # Celery's messages without a zone are in UTC unless the app says otherwise; those stay.
    if moment.tzinfo is None:
        return None
    due = to_us(moment)
    return due if due - to_us(datetime.now(UTC)) > _AT_ONCE_US else None


def put_off(yard: AppYard, message: Any, due_us: int) -> None:
    """Publish the message for later; raises `PublishFailed` and redis-py's errors."""
    job_id = job_id_of(message)
    stamp = stamp_of(message) or _first_stamp(yard, message, job_id)
    raw = raw_message(message)
    yard.publisher.publish_later(
        raw.model_copy(update={"headers": {**raw.headers, ETA: raw.headers.get("eta")}}),
        queue=yard.source(message),
        priority=None,
        job_id=job_id,
        stamp=stamp.moved(seq=stamp.seq, sent_us=due_us),
        due_us=due_us,
    )


def _first_stamp(yard: AppYard, message: Any, job_id: str) -> Stamp:
    """Where an unstamped message stands: at the start of the life that its job has or now gets."""
    record = yard.records.read(job_id)
    if record.epoch:
        return Stamp(record.epoch)
    admitted = yard.records.admit(
        job_id,
        job_type=task_of(message),
        queue=yard.source(message),
        priority=0,
        unique_for_s=0,
    )
    if admitted is None:
        raise TypeError("admission outside a pipeline answers at once")
    yard.records.confirm(job_id, admitted.epoch)
    return Stamp(admitted.epoch)
