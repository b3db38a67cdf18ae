"""Read dead letters: `letters.list`, `letters.show`, `letters.stats`, with secrets masked."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine, Select, func, select

from taskyard.access import Identity
from taskyard.control.find_letter_id import find_id
from taskyard.database.job_filter import of_job
from taskyard.database.moved_rows import read_again
from taskyard.database.tables import LETTERS
from taskyard.database.visible_rows import seen_by
from taskyard.errors import NotFound, Refused
from taskyard.jobs.letter_states import OPEN, LetterStatus
from taskyard.wire import redact

__all__ = ["LIMIT", "Filters", "Stats", "count", "list", "show", "stats"]

# As many as a person reads; to see more, query the database.
LIMIT: Final = 1000
_COLUMNS: Final = (
    "id",
    "original_request_id",
    "job_type",
    "domain",
    "queue",
    "failure_category",
    "failure_code",
    "failure_reason",
    "error_class",
    "fingerprint",
    "status",
    "replay_eligible",
    "decided_at",
    "replayed_at",
    "replay_outcome",
    "mirror_error",
)
_BYTES: Final = ("body", "raw_envelope")
_EXACT: Final = (
    "failure_category",
    "job_type",
    "domain",
    "queue",
    "original_request_id",
    "fingerprint",
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which dead letters to select; None does not filter.

    `job_id` is a job's id or its first six characters or more. Deleted dead letters are selected
    only if `status` names them.
    """

    status: LetterStatus | None = None
    failure_category: str | None = None
    job_type: str | None = None
    domain: str | None = None
    queue: str | None = None
    original_request_id: str | None = None
    job_id: str | None = None
    fingerprint: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def on(self, query: Select[Any]) -> Select[Any]:
        """Return `query`, limited to the dead letters that match these filters."""
        for name in _EXACT:
            wanted = getattr(self, name)
            if wanted is not None:
                query = query.where(LETTERS.c[name] == wanted)
        if self.job_id is not None:
            query = query.where(of_job(LETTERS, "original_request_id", self.job_id))
        if self.since is not None:
            query = query.where(LETTERS.c.decided_at >= self.since)
        if self.until is not None:
            query = query.where(LETTERS.c.decided_at < self.until)
        if self.status is None:
            return query.where(LETTERS.c.status != LetterStatus.DELETED)
        return query.where(LETTERS.c.status == self.status)


@dataclass(frozen=True, slots=True)
class Stats:
    """How many dead letters there are; `by_category` counts those that wait for an operator."""

    total: int
    by_status: Mapping[str, int]
    by_category: Mapping[str, int]


def list(  # noqa: A001 - it reads `letters.list`
    engine: Engine,
    filters: Filters | None = None,
    limit: int = 50,
    *,
    identity: Identity | None = None,
) -> tuple[dict[str, Any], ...]:
    """Return the newest dead letters that match, at most `LIMIT`, without their payloads.

    `attempts` is the number that `count` returns. With an `identity`, the list has only dead
    letters within its queues and domains.
    """
    if not 1 <= limit <= LIMIT:
        raise Refused(f"limit must be from 1 to {LIMIT}, got {limit}")
    columns = [LETTERS.c[name] for name in _COLUMNS]
    last = LETTERS.c.attempts[-1]["attempt"].as_integer()
    attempts = func.coalesce(last, 0).label("attempts")
    query = (Filters() if filters is None else filters).on(select(*columns, attempts))
    query = _seen_by(identity, query)
    query = query.order_by(LETTERS.c.decided_at.desc(), LETTERS.c.id).limit(limit)
    with engine.connect() as connection:
        return tuple(_shown(dict(row)) for row in connection.execute(query).mappings())


def show(
    engine: Engine, name: str | uuid.UUID, *, identity: Identity | None = None
) -> dict[str, Any]:
    """Return everything about one dead letter, by id or its first characters (six or more).

    Raises `NotFound`. With an `identity`, a dead letter outside its queues and domains is not found
    either.
    """
    with engine.connect() as connection:
        query = select(LETTERS).where(LETTERS.c.id == find_id(connection, name, identity))
        rows = read_again(connection, _seen_by(identity, query))
    if not rows:
        raise NotFound(f"there is no dead letter {str(name)!r}. See: taskyard dlq list")
    return _shown(dict(rows[0]))


def count(attempts: Sequence[Mapping[str, Any]]) -> int:
    """Return how often a worker began the job in the generation that died.

    This is the number of the last attempt. An attempt that a draining worker gave back has a number
    and no entry, since such an attempt does not count.
    """
    return int(attempts[-1]["attempt"]) if attempts else 0


def stats(engine: Engine, *, identity: Identity | None = None) -> Stats:
    """Count dead letters by status, and open ones by category, within the identity's bounds."""
    query = select(LETTERS.c.status, LETTERS.c.failure_category, func.count()).group_by(
        LETTERS.c.status, LETTERS.c.failure_category
    )
    query = _seen_by(identity, query)
    by_status: dict[str, int] = {}
    by_category: dict[str, int] = {}
    with engine.connect() as connection:
        for status, category, count in connection.execute(query):
            by_status[status] = by_status.get(status, 0) + count
            if status in OPEN:
                by_category[category] = by_category.get(category, 0) + count
    return Stats(sum(by_status.values()), by_status, by_category)


def _seen_by(identity: Identity | None, query: Select[Any]) -> Select[Any]:
    return seen_by(identity, query, queue=LETTERS.c.queue, domain=LETTERS.c.domain)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dead letter with secrets masked.

    Bytes are shown as size and hash, because secrets in them cannot be masked. `job_id` is the
    name that every document of a job has, besides the table's own.
    """
    shown = {name: redact(value) for name, value in row.items() if name not in _BYTES}
    shown["job_id"] = row["original_request_id"]
    for name in _BYTES:
        held = row.get(name)
        if held is not None:
            digest = hashlib.sha256(held).hexdigest()
            shown[name] = {"bytes": len(held), "sha256": digest}
    return shown
