"""Reading a job's present and past."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from taskyard.database.tables import EVENTS, LEDGER
from taskyard.errors import NotFound

__all__ = ["history", "job"]


def job(connection: Connection, job_id: str) -> dict[str, Any]:
    """The present of a job's latest life; raises `NotFound`."""
    query = select(LEDGER).where(LEDGER.c.job_id == job_id).order_by(LEDGER.c.epoch.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(
            f"the ledger has no job {job_id!r}: it is too old, was never admitted, or the mirror "
            "is behind. See: taskyard check"
        )
    return dict(row)


def history(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Every stored event of a job's lives, in order; empty if there is none."""
    query = (
        select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.epoch, EVENTS.c.version)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
