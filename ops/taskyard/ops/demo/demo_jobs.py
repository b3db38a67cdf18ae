"""The demonstration's jobs and their current states, read from their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from taskyard.client import JobHandle
from taskyard.clock import SYSTEM_CLOCK, seconds_of, to_us
from taskyard.jobs.states import LIVE, State
from taskyard.ops.cli.ids import short_id
from taskyard.records import Record

__all__ = ["COLUMNS", "Cast", "Role"]

COLUMNS = ("job", "id", "queue", "state", "attempts", "time", "note")


@dataclass(frozen=True, slots=True)
class Role:
    """One job and its name in the demonstration."""

    name: str
    handle: JobHandle


@dataclass(slots=True)
class Cast:
    """All jobs so far, in the order in which they were enqueued."""

    roles: list[Role] = field(default_factory=list)

    def rows(self) -> Sequence[Sequence[object]]:
        """Return one row per job for `COLUMNS`."""
        return [_row(role, role.handle.record()) for role in self.roles]


def _row(role: Role, record: Record) -> Sequence[object]:
    return (
        role.name,
        short_id(record.job_id),
        record.queue,
        record.state.value,
        record.fields.get("attempts"),  # the record of a completed job has no counters
        _time(record),
        _note(record),
    )


def _time(record: Record) -> str:
    """Return the time since admission, until the decision if there is one."""
    now_us = to_us(SYSTEM_CLOCK.now())
    running = record.state in LIVE - {State.DEAD_LETTERED}
    end_us = now_us if running else record.number("decided") or now_us
    return f"{seconds_of(max(0, end_us - record.epoch)):.1f} s"


def _note(record: Record) -> str:
    if record.state is State.DEAD_LETTERED:
        return f"{record.cause.get('code')}: {record.cause.get('message')}"
    note = record.progress.get("note") if record.state is State.RUNNING else None
    return str(note or "")
