"""Reading dead letters: `letters.list`, `letters.show`, `letters.stats`, redacted for showing."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine, Select, func, select

from taskyard.control.edits import captured
from taskyard.control.prefixes import find_id
from taskyard.database.tables import LETTERS
from taskyard.errors import Refused
from taskyard.jobs.letter_states import OPEN, LetterStatus
from taskyard.wire import RawMessage, redact

__all__ = ["LIMIT", "Filters", "Stats", "count", "list", "message", "show", "stats"]

# A page that a person reads; more is a query for the database.
LIMIT: Final = 1000
_COLUMNS: Final = (
    "id",
    "original_request_id",
    "job_type",
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


@dataclass(frozen=True, slots=True)
class Filters:
    """Which letters; None does not filter. Deleted ones are seen only by asking for them."""

    status: LetterStatus | None = None
    failure_category: str | None = None
    job_type: str | None = None
    queue: str | None = None
    original_request_id: str | None = None
    fingerprint: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def on(self, query: Select[Any]) -> Select[Any]:
        """`query` narrowed to these letters."""
        for name in ("failure_category", "job_type", "queue", "original_request_id", "fingerprint"):
            wanted = getattr(self, name)
            if wanted is not None:
                query = query.where(LETTERS.c[name] == wanted)
        if self.since is not None:
            query = query.where(LETTERS.c.decided_at >= self.since)
        if self.until is not None:
            query = query.where(LETTERS.c.decided_at < self.until)
        if self.status is None:
            return query.where(LETTERS.c.status != LetterStatus.DELETED)
        return query.where(LETTERS.c.status == self.status)


@dataclass(frozen=True, slots=True)
class Stats:
    """How many letters there are; `by_category` counts those that wait for an operator."""

    total: int
    by_status: Mapping[str, int]
    by_category: Mapping[str, int]


def list(  # noqa: A001 - it reads `letters.list`
    engine: Engine, filters: Filters | None = None, limit: int = 50
) -> tuple[dict[str, Any], ...]:
    """The newest letters that fit, at most `LIMIT`: no payloads, `attempts` as `count` has it."""
    if not 1 <= limit <= LIMIT:
        raise Refused(f"limit must lie between 1 and {LIMIT}, got {limit}")
    columns = [LETTERS.c[name] for name in _COLUMNS]
    last = LETTERS.c.attempts[-1]["attempt"].as_integer()
    attempts = func.coalesce(last, 0).label("attempts")
    query = (Filters() if filters is None else filters).on(select(*columns, attempts))
    query = query.order_by(LETTERS.c.decided_at.desc(), LETTERS.c.id).limit(limit)
    with engine.connect() as connection:
        return tuple(_shown(dict(row)) for row in connection.execute(query).mappings())


def show(engine: Engine, name: str | uuid.UUID) -> dict[str, Any]:
    """Everything about one letter, by id or a prefix of six characters; raises `NotFound`."""
    with engine.connect() as connection:
        query = select(LETTERS).where(LETTERS.c.id == find_id(connection, name))
        return _shown(dict(connection.execute(query).mappings().one()))


def count(attempts: Sequence[Mapping[str, Any]]) -> int:
    """How often a worker began the job in the generation that died: the last attempt's number.

    Attempts that a drain gave back have a number and no note, since they count against nothing.
    """
    return int(attempts[-1]["attempt"]) if attempts else 0


def message(engine: Engine, name: str | uuid.UUID) -> RawMessage:
    """The captured message that a replay would send, secrets and all; raises `NotFound`."""
    with engine.connect() as connection:
        query = select(LETTERS).where(LETTERS.c.id == find_id(connection, name))
        return captured(dict(connection.execute(query).mappings().one()))


def stats(engine: Engine) -> Stats:
    """Counts by status, and by category of what is open."""
    query = select(LETTERS.c.status, LETTERS.c.failure_category, func.count()).group_by(
        LETTERS.c.status, LETTERS.c.failure_category
    )
    by_status: dict[str, int] = {}
    by_category: dict[str, int] = {}
    with engine.connect() as connection:
        for status, category, count in connection.execute(query):
            by_status[status] = by_status.get(status, 0) + count
            if status in OPEN:
                by_category[category] = by_category.get(category, 0) + count
    return Stats(sum(by_status.values()), by_status, by_category)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Secrets masked; bytes as size and hash, since what cannot be read cannot be redacted."""
    shown = {name: redact(value) for name, value in row.items() if name not in _BYTES}
    for name in _BYTES:
        held = row.get(name)
        if held is not None:
            digest = hashlib.sha256(held).hexdigest()
            shown[name] = {"bytes": len(held), "sha256": digest}
    return shown
