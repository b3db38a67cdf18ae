"""Delay a message with an ETA at the broker, not in a worker that may end before."""

from __future__ import annotations

from typing import Any

from taskyard.engine.eta_parsing import is_date
from taskyard.engine.read_message import job_id_of, position_of, raw_message, task_of
from taskyard.install.attribute_names import ETA
from taskyard.install.installed_context import InstalledContext
from taskyard.wire.stamp_header import Stamp

__all__ = ["date_before_waiting", "put_off"]


def put_off(yard: InstalledContext, message: Any, due_us: int) -> None:
    """Publish the message for its due time; raises `PublishFailed` and redis-py's errors."""
    job_id = job_id_of(message)
    # Celery's count of replacements gives the message's position, as soon as it begins.
    stamp = position_of(message) or _first_stamp(yard, message, job_id)
    raw = raw_message(message)
    yard.publisher.publish_later(
        raw.model_copy(update={"headers": {**raw.headers, ETA: raw.headers.get("eta")}}),
        queue=yard.source(message),
        priority=None,
        job_id=job_id,
        stamp=stamp.moved(seq=stamp.seq, sent_us=due_us),
        due_us=due_us,
    )


def date_before_waiting(message: Any) -> str | None:
    """Return the ETA that a message had before it waited at the broker; its task reads it."""
    found = (message.headers or {}).get(ETA)
    return found if is_date(found) else None


def _first_stamp(yard: InstalledContext, message: Any, job_id: str) -> Stamp:
    """Return the first stamp for a message that has none.

    It is the start of its job's present or new epoch.
    """
    record = yard.records.read(job_id)
    if record.epoch:
        return Stamp(record.epoch)
    admitted = yard.records.admit(
        job_id,
        job_type=task_of(message),
        queue=yard.source(message),
        priority=0,
        unique_for_s=0,
        # The app has published it: a kill switch holds it where it begins.
        refusable=False,
    )
    yard.records.confirm(job_id, admitted.epoch)
    return Stamp(admitted.epoch)
