"""Weekly partitions: created in advance, and dropped as a whole when they are past retention.

A row outside every week (from a wrong clock, or a late dead letter) is in the default partition;
when its week is created later, the row moves there. A dead letter's week is the week of its
decision, a job's week that of its admission. Retention counts from when a dead letter was mirrored,
and from when a job last changed.

Functions of the tables' owner do the work, so that no process needs the right to create or drop a
table. These functions refuse to drop rows that are younger than a day, for every caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

__all__ = [
    "AHEAD",
    "PARTITIONED",
    "AgedOut",
    "create_partitions",
    "drop_partitions_before",
    "partitions",
]

AHEAD: Final = timedelta(weeks=3)
PARTITIONED: Final = ("dead_letter_queue", "job_ledger", "job_events")


def create_partitions(connection: Connection, now: datetime, ahead: timedelta = AHEAD) -> list[str]:
    """Create the missing weeks, from last week to `ahead` of `now`; return their names.

    A week that exists already costs nothing. Call this function at start and every hour.
    """
    call = text("SELECT taskyard_create_partitions(:now, :ahead)")
    return list(connection.scalars(call, {"now": now, "ahead": ahead}))


@dataclass(frozen=True, slots=True)
class AgedOut:
    """The result of one call of `drop_partitions_before`."""

    weeks: tuple[str, ...]
    rows: int
    """Deleted rows, including those without a week."""
    open_letters: int
    """How many of these rows were dead letters that still waited for an operator."""
    kept: int
    """Younger rows of these weeks, which were moved to the default partition."""


def drop_partitions_before(connection: Connection, table: str, cutoff: datetime) -> AgedOut:
    """Drop the weeks of `table` that ended before `cutoff`, and older rows without a week.

    A row of such a week that is younger than `cutoff` is kept. Raises KeyError for a table without
    partitions.
    """
    if table not in PARTITIONED:
        raise KeyError(table)
    call = text(
        "SELECT weeks, gone, open_letters, kept FROM taskyard_drop_partitions(:table, :cutoff)"
    )
    weeks, gone, open_letters, kept = connection.execute(
        call, {"table": table, "cutoff": cutoff}
    ).one()
    return AgedOut(tuple(weeks), gone, open_letters, kept)


def partitions(connection: Connection, table: str) -> list[str]:
    """The names of a table's weekly partitions, oldest first."""
    names = connection.scalars(
        text(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = :table ::regclass"
        ),
        {"table": table},
    )
    return sorted(name for name in names if re.search(r"_p\d{8}$", name))
