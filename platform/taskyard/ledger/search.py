"""Finding jobs: the newest that fit, and those whose id begins with some characters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from taskyard.database.tables import LEDGER
from taskyard.errors import Refused

__all__ = ["SEARCH_LIMIT", "Wanted", "ids_starting_with", "newest"]

# A page that a person reads; more is a query for the database.
SEARCH_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs; None does not filter."""

    state: str | None = None
    job_type: str | None = None
    queue: str | None = None
    since: datetime | None = None


def newest(connection: Connection, wanted: Wanted, limit: int = 50) -> list[dict[str, Any]]:
    """The jobs that fit, last changed first; raises `Refused` outside 1 to `SEARCH_LIMIT`."""
    if not 1 <= limit <= SEARCH_LIMIT:
        raise Refused(f"limit must lie between 1 and {SEARCH_LIMIT}, got {limit}")
    query = select(LEDGER)
    for name in ("state", "job_type", "queue"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(LEDGER.c[name] == value)
    if wanted.since is not None:
        query = query.where(LEDGER.c.updated_at >= wanted.since)
    query = query.order_by(LEDGER.c.updated_at.desc(), LEDGER.c.job_id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def ids_starting_with(connection: Connection, prefix: str, limit: int) -> list[str]:
    """The ids of at most `limit` jobs that begin with `prefix`, in order."""
    query = (
        select(LEDGER.c.job_id)
        .where(LEDGER.c.job_id.startswith(prefix, autoescape=True))
        .distinct()
        .order_by(LEDGER.c.job_id)
        .limit(limit)
    )
    return list(connection.scalars(query))
