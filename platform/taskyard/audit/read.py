"""Read the audit log: lists, the rows of one call, all rows for an export; secrets masked."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, func, or_, select, text

from taskyard.access import Action, Identity
from taskyard.audit.append_rows import Outcome
from taskyard.database.job_filter import of_job
from taskyard.database.tables import AUDIT, LEDGER, LETTERS
from taskyard.database.visible_rows import seen_by
from taskyard.errors import NotFound, Refused
from taskyard.wire.redaction import mask_tokens, redact

__all__ = [
    "COLUMNS",
    "LIMIT",
    "Filters",
    "list_rows",
    "requested_among",
    "rows_of",
    "rows_within",
    "show",
    "size_of",
]

LIMIT: Final = 1000
"""As many as a person reads; for more, use an export."""
_STORED: Final = tuple(column.name for column in AUDIT.c if column.name != "transaction_id")
COLUMNS: Final = (*_STORED, "job_id")
"""The shown columns of a row; only the sealer uses the transaction's number.

`job_id` repeats `target_request_id` under the name that a job's id has everywhere.
"""
_MINIMUM_PREFIX: Final = 6
_PAGE: Final = 1000
_SEAL: Final = text(
    "SELECT seq FROM audit_seals WHERE next_transaction > :transaction AND :id = ANY(row_ids) "
    "ORDER BY next_transaction LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows to select; None does not filter.

    `outcome` is the first word of the outcome; `job` is a job's id or its first six characters or
    more.
    """

    action: Action | None = None
    identity: str | None = None
    outcome: str | None = None
    job: str | None = None
    letter: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    def on(self, query: Select[Any]) -> Select[Any]:
        """Return `query`, limited to the rows that match these filters."""
        equal = {
            AUDIT.c.action_type: self.action,
            AUDIT.c.operator_identity: self.identity,
            AUDIT.c.dead_letter_id: self.letter,
        }
        for column, wanted in equal.items():
            if wanted is not None:
                query = query.where(column == wanted)
        if self.job is not None:
            query = query.where(of_job(AUDIT, "target_request_id", self.job))
        if self.outcome is not None:
            query = query.where(func.split_part(AUDIT.c.outcome, ":", 1) == self.outcome)
        if self.since is not None:
            query = query.where(AUDIT.c.performed_at >= self.since)
        if self.until is not None:
            query = query.where(AUDIT.c.performed_at < self.until)
        return query

    def document(self) -> dict[str, str]:
        """Return the filters that are set, for the audit row of an export."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


def list_rows(
    engine: Engine,
    filters: Filters | None = None,
    limit: int = 50,
    *,
    identity: Identity | None = None,
) -> tuple[dict[str, Any], ...]:
    """Return the newest rows that match, at most `LIMIT`.

    An `identity` with bounds sees its own rows, and those about jobs and dead letters within them.
    """
    if not 1 <= limit <= LIMIT:
        raise Refused(f"limit must be from 1 to {LIMIT}, got {limit}")
    query = _seen_by(identity, (filters or Filters()).on(_SHOWN))
    query = query.order_by(AUDIT.c.performed_at.desc(), AUDIT.c.id.desc())
    with engine.connect() as connection:
        return tuple(_masked(row) for row in connection.execute(query.limit(limit)).mappings())


def show(
    engine: Engine, name: str, *, identity: Identity | None = None
) -> tuple[dict[str, Any], ...]:
    """Return every row of one call, oldest first, each with its `seal` (None for one without).

    `name` is the request id or its first six characters or more. With an `identity`, a call whose
    rows `list_rows` would not return is not found. Raises `NotFound`, `Refused`.
    """
    with engine.connect() as connection:
        request_id = _find(connection, name, identity)
        return tuple(
            {**_masked(row), "seal": _seal_of(connection, row)}
            for row in rows_of(connection, request_id)
        )


def rows_of(connection: Connection, request_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return every row of one call, oldest first, with all its columns."""
    query = select(AUDIT).where(AUDIT.c.request_id == request_id).order_by(AUDIT.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def requested_among(connection: Connection, jobs: Mapping[uuid.UUID, str]) -> frozenset[uuid.UUID]:
    """Return the ids of the calls that somebody requested on their job, as the log's rows say.

    `jobs` has the job of each call, by the call's id; the id itself for a call on no one job.
    """
    query = select(AUDIT.c.request_id, AUDIT.c.target_request_id).where(
        AUDIT.c.request_id.in_(jobs), AUDIT.c.outcome == Outcome.REQUESTED
    )
    return frozenset(
        request
        for request, target in connection.execute(query)
        if (str(request) if target is None else target) == mask_tokens(jobs[request])
    )


def size_of(connection: Connection, filters: Filters) -> int:
    """Return how many rows match the filters."""
    return connection.scalar(filters.on(select(func.count()).select_from(AUDIT))) or 0


def rows_within(connection: Connection, filters: Filters) -> Iterator[dict[str, Any]]:
    """Yield all rows that match, by their ids.

    From one snapshot if the caller's transaction has one.
    """
    last = 0
    while True:
        query = filters.on(_SHOWN).where(AUDIT.c.id > last).order_by(AUDIT.c.id).limit(_PAGE)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            yield _masked(row)
        if len(rows) < _PAGE:
            return
        last = rows[-1]["id"]


def _seen_by(identity: Identity | None, query: Select[Any]) -> Select[Any]:
    """Limit `query` to an identity's own rows and to those about what is within its bounds.

    A row names a job or a dead letter, and neither its queue nor its domain. A row that names
    neither, such as the creation of a token, is within no bound.
    """
    if identity is None or (identity.queues is None and identity.domains is None):
        return query
    jobs = seen_by(identity, select(LEDGER.c.job_id), queue=LEDGER.c.queue, domain=LEDGER.c.domain)
    letters = seen_by(
        identity, select(LETTERS.c.id), queue=LETTERS.c.queue, domain=LETTERS.c.domain
    )
    return query.where(
        or_(
            AUDIT.c.operator_identity == identity.subject,
            AUDIT.c.target_request_id.in_(jobs),
            AUDIT.c.dead_letter_id.in_(letters),
        )
    )


_SHOWN: Final = select(*(AUDIT.c[name] for name in _STORED))


def _masked(row: Mapping[Any, Any]) -> dict[str, Any]:
    # `identity_via` may be `token:<id>`, which is no secret and would be masked like one.
    shown = {name: row[name] if name == "identity_via" else redact(row[name]) for name in _STORED}
    return {**shown, "job_id": shown["target_request_id"]}


def _seal_of(connection: Connection, row: Mapping[Any, Any]) -> int | None:
    values = {"transaction": row["transaction_id"], "id": row["id"]}
    found: int | None = connection.scalar(_SEAL, values)
    return found


def _find(connection: Connection, name: str, identity: Identity | None) -> uuid.UUID:
    digits = name.strip().replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{6,32}", digits):
        raise NotFound(
            f"{name[:60]!r} is not a request's id: expected a UUID or at least {_MINIMUM_PREFIX} "
            "of its first characters. See: taskyard audit list"
        )
    low, high = (uuid.UUID(digits.ljust(32, fill)) for fill in "0f")
    within = select(AUDIT.c.request_id).where(AUDIT.c.request_id.between(low, high))
    query = _seen_by(identity, within).distinct().order_by(AUDIT.c.request_id)
    found = list(connection.scalars(query.limit(3)))
    if not found:
        raise NotFound(f"the audit log has no request {name!r}. See: taskyard audit list")
    if len(found) > 1:
        raise Refused(
            f"{name!r} is ambiguous: {', '.join(map(str, found[:2]))} and perhaps more. Give more "
            "characters"
        )
    first: uuid.UUID = found[0]
    return first
