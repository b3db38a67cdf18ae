"""When jobs that were replayed began again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select, tuple_

from taskyard.database.tables import EVENTS
from taskyard.jobs.states import Event

__all__ = ["starts_after_replay"]


def starts_after_replay(
    connection: Connection, rows: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int], datetime]:
    """The first start after the last replay of each life among `rows`, by (job_id, epoch).

    One that was not replayed, or whose events have aged out, has none.
    """
    lives = [(row["job_id"], row["epoch"]) for row in rows if row["generation"]]
    if not lives:
        return {}
    life = (EVENTS.c.job_id, EVENTS.c.epoch)
    replayed = (
        select(*life, func.max(EVENTS.c.version).label("version"))
        .where(tuple_(*life).in_(lives), EVENTS.c.event == Event.REPLAY.value)
        .group_by(*life)
        .subquery()
    )
    again = and_(
        EVENTS.c.job_id == replayed.c.job_id,
        EVENTS.c.epoch == replayed.c.epoch,
        EVENTS.c.version > replayed.c.version,
    )
    query = (
        select(*life, func.min(EVENTS.c.at))
        .join(replayed, again)
        .where(EVENTS.c.event == Event.BEGIN.value)
        .group_by(*life)
    )
    return {(job, epoch): at for job, epoch, at in connection.execute(query)}
