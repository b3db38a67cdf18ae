"""Jobs whose ledger row is older than their record, and jobs that only the ledger has."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, func, select, tuple_

from taskyard import ledger
from taskyard.clock import from_us, us_of
from taskyard.database.postgres_errors import (
    REFUSALS,
    Refusal,
    cause_of,
    first_line,
    refusal_of_values,
)
from taskyard.database.tables import LEDGER
from taskyard.errors import Refused
from taskyard.inspection.record_fields import BATCH, Seen, read_records
from taskyard.inspection.search_budget import Budget
from taskyard.jobs.states import State
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.records import Records
from taskyard.wire import letter_id

__all__ = ["behind", "forgotten", "oldest_event_us"]

_ALIVE: Final = ("accepted", "running", "retrying", "rerouted")
_SLACK_US: Final = us_of(1)


def oldest_event_us(records: Records) -> int | None:
    """Return the time of the oldest event that the mirror has not stored; None without one."""
    entries: Any = records.client.xrange(records.keys.lifecycle, count=1)
    return int(entries[0][0].partition(b"-")[0]) * 1000 if entries else None


def behind(
    engine: Engine, seen: Sequence[Seen], settled_us: int, oldest_us: int | None
) -> Iterator[Finding]:
    """Yield ledger rows that are older than their record although no event is on its way."""
    if oldest_us is not None:
        settled_us = min(settled_us, oldest_us - _SLACK_US)
    settled = [one for one in seen if one.touched_us < settled_us]
    if not settled:
        return
    known = _versions(engine, settled)
    for one in settled:
        version = known[one.job_id, one.epoch]
        if version is not None and version < one.version:
            yield Finding(
                Kind.LEDGER_BEHIND,
                one.job_id,
                lambda one=one: _write(engine, one),  # type: ignore[misc] # a bound default
            )


def _versions(engine: Engine, seen: Sequence[Seen]) -> dict[tuple[str, int], int | None]:
    """Return the version of each job in the ledger, -1 for a job without a row.

    The version is None for an id that Postgres cannot store (a NUL, a character that its encoding
    lacks): the mirror keeps the events of such a job as bytes, so there is no row to compare.
    """
    keys = [(one.job_id, one.epoch) for one in seen]
    wanted = tuple_(LEDGER.c.job_id, LEDGER.c.epoch)
    query = select(LEDGER.c.job_id, LEDGER.c.epoch, LEDGER.c.version).where(wanted.in_(keys))
    try:
        with engine.connect() as connection:
            rows = connection.execute(query).all()
    except REFUSALS as error:
        if refusal_of_values(error) is not Refusal.DATA:
            raise
        if len(seen) == 1:
            return dict.fromkeys(keys)
        middle = len(seen) // 2
        return _versions(engine, seen[:middle]) | _versions(engine, seen[middle:])
    return dict.fromkeys(keys, -1) | {(row.job_id, row.epoch): row.version for row in rows}


def forgotten(
    engine: Engine, records: Records, budget: Budget, limit: int, grace_s: float
) -> Iterator[Finding]:
    """Yield jobs that have not ended in the ledger, and of which Redis has no record."""
    query = (
        select(LEDGER.c.job_id)
        .where(LEDGER.c.state.in_(_ALIVE))
        .where(LEDGER.c.updated_at < func.now() - timedelta(seconds=grace_s))
        .order_by(LEDGER.c.updated_at.desc())
        .limit(limit)
    )
    with engine.connect() as connection:
        job_ids = list(connection.scalars(query))
    for start in range(0, len(job_ids), BATCH):
        if not budget.ask():
            return
        for seen in read_records(records.client, records.keys, job_ids[start : start + BATCH]):
            if seen.state is State.NONE:
                yield Finding(Kind.JOB_FORGOTTEN, seen.job_id)


def _write(engine: Engine, seen: Seen) -> bool:
    dead = seen.state is State.DEAD_LETTERED
    letter = letter_id(seen.job_id, seen.epoch, seen.generation)
    row = {
        "job_id": seen.job_id,
        "epoch": seen.epoch,
        "version": seen.version,
        "state": seen.state.value,
        "generation": seen.generation,
        "seq": seen.numbers["seq"],
        "job_type": seen.texts["type"] or None,
        "domain": seen.texts["domain"] or None,
        "queue": seen.texts["queue"] or None,
        "priority": int(seen.texts["priority"]) if seen.texts["priority"] else None,
        "attempts": None,
        "admitted_at": _time(seen.numbers["admitted"]),
        "started_at": _time(seen.numbers["started"]),
        "ended_at": _time(seen.numbers["decided"] if dead else seen.numbers["ended"]),
        "updated_at": from_us(seen.touched_us or seen.epoch),
        "code": None,
        "category": None,
        "worker": seen.texts["worker"] or None,
        "letter_id": uuid.UUID(letter) if dead else None,
    }
    try:
        with engine.begin() as connection:
            ledger.write_present(connection, [row])
    except REFUSALS as error:
        if refusal_of_values(error) is not Refusal.DATA:
            raise
        said = first_line(cause_of(error))
        raise Refused(f"Postgres cannot store the text of its record: {said}") from error
    return True


def _time(us: int) -> datetime | None:
    return from_us(us) if us else None
