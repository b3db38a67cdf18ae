"""What an error said of jobs whose rows have only its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select, tuple_

from taskyard.database.tables import EVENTS

__all__ = ["messages_of"]


def messages_of(
    connection: Connection, rows: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int], str]:
    """The last error's words of each life among `rows`, by (job_id, epoch); some have none."""
    lives = [(row["job_id"], row["epoch"]) for row in rows]
    if not lives:
        return {}
    error = EVENTS.c.detail["error"].as_string()
    query = (
        select(EVENTS.c.job_id, EVENTS.c.epoch, error)
        .where(tuple_(EVENTS.c.job_id, EVENTS.c.epoch).in_(lives), error.is_not(None))
        .distinct(EVENTS.c.job_id, EVENTS.c.epoch)
        .order_by(EVENTS.c.job_id, EVENTS.c.epoch, EVENTS.c.version.desc())
    )
    return {(job, epoch): text for job, epoch, text in connection.execute(query)}
