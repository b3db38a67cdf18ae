"""Weekly partitions: created in advance, and dropped as a whole when they are past retention.

A row outside every week (from a wrong clock, or a late letter) is in the default partition;
creating its week later moves it there. A letter's week is that of its decision, a job's that of its
admission. Retention counts from when a letter was mirrored, and from when a job last changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from taskyard.clock import to_us
from taskyard.jobs.letter_states import OPEN

__all__ = [
    "AHEAD",
    "PARTITIONED",
    "AgedOut",
    "create_partitions",
    "drop_partitions_before",
    "partitions",
]

AHEAD: Final = timedelta(weeks=3)
# Table -> the column of its ranges; the names below are constants, never input.
PARTITIONED: Final = {
    "dead_letter_queue": "decided_at",
    "job_ledger": "epoch",
    "job_events": "epoch",
}
# Table -> the column that a row's age is counted from. A decision may have the time of a wrong
# clock or have waited in a backlog; a job that was admitted long ago may have been replayed today.
_AGED_BY: Final = {
    "dead_letter_queue": "mirrored_at",
    "job_ledger": "updated_at",
    "job_events": "at",
}
_OPEN: Final = ", ".join(f"'{status}'" for status in OPEN)
_WEEK: Final = timedelta(weeks=1)
_LOCK: Final = 0x7461736B70617274  # "taskpart": a lock, for two mirrors may start at once
_LOCK_TIMEOUT: Final = "2s"  # short: while it waits for a table lock, later statements wait too


def create_partitions(connection: Connection, now: datetime, ahead: timedelta = AHEAD) -> list[str]:
    """Create the missing weeks from last week's to the one `ahead` of `now`; return their names.

    A week that exists already costs nothing. Call it at start and every hour.
    """
    _lock(connection)
    created = []
    for table, column in PARTITIONED.items():
        known = set(partitions(connection, table))
        week = _monday(now - _WEEK)
        while week <= now + ahead:
            name = _name(table, week)
            if name not in known:
                _create(connection, table, column, week)
                created.append(name)
            week += _WEEK
    return created


@dataclass(frozen=True, slots=True)
class AgedOut:
    """What one call of `drop_partitions_before` did."""

    weeks: tuple[str, ...]
    rows: int
    """Deleted rows, including those without a week."""
    open_letters: int
    """How many of these were letters that still waited for an operator."""
    kept: int
    """Younger rows of these weeks, which were moved to the default partition."""


def drop_partitions_before(connection: Connection, table: str, cutoff: datetime) -> AgedOut:
    """Drop the weeks of `table` that ended before `cutoff`, and older rows without a week.

    A row of such a week that is younger than `cutoff` is kept. Raises KeyError for a table without
    partitions.
    """
    aged = _AGED_BY[table]
    _lock(connection)
    old = [name for name in partitions(connection, table) if _week_of(name) + _WEEK <= cutoff]
    rows = open_letters = kept = 0
    for name in old:
        # Detached first: it gets no new rows from here on, and the default partition accepts its
        # rows.
        connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {name}"))
        kept += connection.execute(
            text(f"INSERT INTO {table} SELECT * FROM {name} WHERE {aged} >= :cutoff"),  # noqa: S608 - PARTITIONED
            {"cutoff": cutoff},
        ).rowcount
        counts = f"SELECT {_counts(table)} FROM {name} WHERE {aged} < :cutoff"  # noqa: S608 - PARTITIONED
        gone, waited = connection.execute(text(counts), {"cutoff": cutoff}).one()
        rows, open_letters = rows + gone, open_letters + waited
        connection.execute(text(f"DROP TABLE {name}"))
    deleted = (
        f"WITH gone AS (DELETE FROM {table}_default WHERE {aged} < :cutoff RETURNING *) "  # noqa: S608 - PARTITIONED
        f"SELECT {_counts(table)} FROM gone"
    )
    gone, waited = connection.execute(text(deleted), {"cutoff": cutoff}).one()
    return AgedOut(tuple(old), rows + gone, open_letters + waited, kept)


def partitions(connection: Connection, table: str) -> list[str]:
    """Return the names of a table's weekly partitions, oldest first."""
    names = connection.scalars(
        text(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = :table ::regclass"
        ),
        {"table": table},
    )
    return sorted(name for name in names if re.search(r"_p\d{8}$", name))


def _lock(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    connection.execute(text("SELECT set_config('lock_timeout', :t, true)"), {"t": _LOCK_TIMEOUT})


def _create(connection: Connection, table: str, column: str, week: datetime) -> None:
    name, low, high = _name(table, week), _literal(column, week), _literal(column, week + _WEEK)
    held = f"{column} >= {low} AND {column} < {high}"
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
    # A range cannot be attached while the default partition holds rows of it.
    connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {table}_default WHERE {held} RETURNING *) "  # noqa: S608 - PARTITIONED
            f"INSERT INTO {name} SELECT * FROM moved"
        )
    )
    connection.execute(
        text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})")
    )


def _counts(table: str) -> str:
    """Return SQL columns that count the rows, and the open letters among them."""
    if table != "dead_letter_queue":
        return "count(*), 0"
    return f"count(*), count(*) FILTER (WHERE status IN ({_OPEN}))"


def _name(table: str, week: datetime) -> str:
    return f"{table}_p{week:%Y%m%d}"


def _week_of(name: str) -> datetime:
    return datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)


def _monday(moment: datetime) -> datetime:
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _literal(column: str, moment: datetime) -> str:
    return str(to_us(moment)) if column == "epoch" else f"'{moment.isoformat()}'"
