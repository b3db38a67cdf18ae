"""Weekly partitions: created ahead, aged out by dropping a week at once.

A row outside every week (a clock that was wrong, a letter that was late) lies in the default
partition; creating its week later moves it there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from taskyard.clock import to_us

__all__ = ["AHEAD", "PARTITIONED", "create_partitions", "drop_partitions_before", "partitions"]

AHEAD: Final = timedelta(weeks=3)
# Table -> the column of its ranges; None of the names below ever comes from outside.
PARTITIONED: Final = {
    "dead_letter_queue": "decided_at",
    "job_ledger": "epoch",
    "job_events": "epoch",
}
_WEEK: Final = timedelta(weeks=1)
_LOCK: Final = 0x7461736B70617274  # "taskpart": two mirrors start at once
_LOCK_TIMEOUT: Final = "2s"  # waiting for a table lock also holds up everyone behind it


def create_partitions(connection: Connection, now: datetime, ahead: timedelta = AHEAD) -> list[str]:
    """Create the missing weeks from last week's to the one `ahead` of `now`; their names.

    A week that is there costs nothing. Call it at start and every hour.
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


def drop_partitions_before(connection: Connection, table: str, cutoff: datetime) -> list[str]:
    """Drop the weeks of `table` that ended before `cutoff`, whatever they hold; their names.

    Older rows of the default partition go too. Raises KeyError for a table without partitions.
    """
    column = PARTITIONED[table]
    _lock(connection)
    old = [name for name in partitions(connection, table) if _week_of(name) + _WEEK <= cutoff]
    for name in old:
        connection.execute(text(f"DROP TABLE {name}"))
    connection.execute(
        text(f"DELETE FROM {table}_default WHERE {column} < :cutoff"),  # noqa: S608 - PARTITIONED
        {"cutoff": _bound(column, cutoff)},
    )
    return old


def partitions(connection: Connection, table: str) -> list[str]:
    """The names of a table's weekly partitions, oldest first."""
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


def _name(table: str, week: datetime) -> str:
    return f"{table}_p{week:%Y%m%d}"


def _week_of(name: str) -> datetime:
    return datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)


def _monday(moment: datetime) -> datetime:
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _bound(column: str, moment: datetime) -> datetime | int:
    return to_us(moment) if column == "epoch" else moment


def _literal(column: str, moment: datetime) -> str:
    return str(to_us(moment)) if column == "epoch" else f"'{moment.isoformat()}'"
