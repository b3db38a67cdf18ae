"""Read a job's current state and history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select, tuple_

from taskyard.access import Identity
from taskyard.database.tables import EVENTS, LEDGER
from taskyard.database.visible_rows import seen_by
from taskyard.errors import NotFound, Refused
from taskyard.jobs.states import TERMINAL, Event

__all__ = [
    "SEARCH_LIMIT",
    "Wanted",
    "history",
    "ids_starting_with",
    "job",
    "messages_of",
    "newest",
    "starts_after_replay",
]

# As many as a person reads; to see more, query the database.
SEARCH_LIMIT: Final = 1000


def messages_of(
    connection: Connection, rows: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int], str]:
    """Return the last error's text of each job and epoch among `rows`, by (job_id, epoch).

    Jobs without an error are left out.
    """
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


def starts_after_replay(
    connection: Connection, rows: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int], datetime]:
    """Return the first start after the last replay of each job and epoch among `rows`.

    Keys are (job_id, epoch). A job that was not replayed, or whose events were deleted after the
    retention, is left out.
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs to select; None does not filter."""

    state: str | None = None
    job_type: str | None = None
    domain: str | None = None
    queue: str | None = None
    since: datetime | None = None


def newest(
    connection: Connection,
    wanted: Wanted,
    limit: int = 50,
    *,
    identity: Identity | None = None,
    live: bool = False,
) -> list[dict[str, Any]]:
    """Return the matching jobs, last changed first; with `live` only those that have not ended.

    With an `identity`, the list has only jobs within its queues and domains. Raises `Refused` for a
    limit outside 1 to `SEARCH_LIMIT`.
    """
    if not 1 <= limit <= SEARCH_LIMIT:
        raise Refused(f"limit must be from 1 to {SEARCH_LIMIT}, got {limit}")
    query = select(LEDGER)
    for name in ("state", "job_type", "domain", "queue"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(LEDGER.c[name] == value)
    if live:
        query = query.where(LEDGER.c.state.not_in([state.value for state in TERMINAL]))
    if wanted.since is not None:
        query = query.where(LEDGER.c.updated_at >= wanted.since)
    query = seen_by(identity, query, queue=LEDGER.c.queue, domain=LEDGER.c.domain)
    query = query.order_by(LEDGER.c.updated_at.desc(), LEDGER.c.job_id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def ids_starting_with(
    connection: Connection, prefix: str, limit: int, *, identity: Identity | None = None
) -> list[str]:
    """Return at most `limit` ids of jobs that begin with `prefix`, in order.

    With an `identity` only of jobs within its queues and domains.
    """
    query = select(LEDGER.c.job_id).where(LEDGER.c.job_id.startswith(prefix, autoescape=True))
    query = seen_by(identity, query, queue=LEDGER.c.queue, domain=LEDGER.c.domain)
    return list(connection.scalars(query.distinct().order_by(LEDGER.c.job_id).limit(limit)))


def job(connection: Connection, job_id: str) -> dict[str, Any]:
    """Return the ledger's row of a job's latest epoch; raises `NotFound`."""
    query = select(LEDGER).where(LEDGER.c.job_id == job_id).order_by(LEDGER.c.epoch.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(
            f"the ledger has no job {job_id!r}: it is too old, was never admitted, or the mirror "
            "is behind. See: taskyard check"
        )
    return dict(row)


def history(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Return every stored event of a job's epochs, in order; empty if there is none."""
    query = (
        select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.epoch, EVENTS.c.version)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
