"""Give the jobs of Celery beat ids by their due times, so that two beats schedule one job.

A crontab or solar schedule has a due time. An interval has no due time on which two processes could
agree, so the period since 1970 that contains the moment counts instead. One beat never fires twice
in a period, because at least one period lies between two firings.
"""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from celery import signals
from celery.schedules import schedule as interval

from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode

__all__ = ["due_time", "entry_id", "watch_beat"]

_ENTRIES: Final = uuid.UUID("0d6c2c5e-0f7a-5b63-9b0e-6a4f58a1c9d2")


def watch_beat(yard: InstalledContext) -> None:
    """Make this process' beat give ids to protected entries, from its start on."""

    def on_start(sender: Any, **_: Any) -> None:
        if sender.app is yard.app:
            _name_jobs(sender.scheduler, yard)

    for signal in (signals.beat_init, signals.beat_embedded_init):
        signal.connect(on_start, weak=False, dispatch_uid=f"taskyard-beat-{id(yard.app)}")


def _name_jobs(scheduler: Any, yard: InstalledContext) -> None:
    plain = scheduler.apply_async

    def apply_async(entry: Any, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        due = due_time(entry, datetime.now(UTC))
        if advance:
            entry = scheduler.reserve(entry)
        if due is not None and yard.mode(entry.task) is Mode.PROTECT:
            entry = copy.copy(entry)
            wanted = {"task_id": entry_id(yard.given.namespace, entry.name, due)}
            entry.options = wanted | dict(entry.options)
        return plain(entry, producer=producer, advance=False, **options)

    scheduler.apply_async = apply_async


def entry_id(namespace: str, name: str, due: str) -> str:
    """Return the id of the job that a beat entry schedules for a due time."""
    return str(uuid.uuid5(_ENTRIES, f"{namespace}\n{name}\n{due}"))


def due_time(entry: Any, now: datetime) -> str | None:
    """Return the due time of a beat entry that fires now; None for a schedule without one."""
    plan = entry.schedule
    if type(plan) is interval:
        period_s = plan.run_every.total_seconds()
        return f"period {int(now.timestamp() // period_s)}" if period_s > 0 else None
    if not hasattr(plan, "remaining_delta") or entry.last_run_at is None:
        return None
    last, delta, _ = plan.remaining_delta(entry.last_run_at)
    return str((last + delta).astimezone(UTC).isoformat(timespec="minutes"))
