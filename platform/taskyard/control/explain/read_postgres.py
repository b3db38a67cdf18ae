"""What Postgres says of a job: its row and its letter, and what operators requested."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, text

from taskyard import ledger
from taskyard.access import Identity
from taskyard.audit import Outcome
from taskyard.control import letters
from taskyard.control.explain.job_facts import FromPostgres, FromRecords, OpenRequest
from taskyard.control.replay_history import replay_history_of
from taskyard.database.tables import AUDIT, OUTBOX
from taskyard.errors import NotFound
from taskyard.gate import Gate
from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.wire import letter_id
from taskyard.wire.redaction import redact_text

__all__ = ["read_postgres", "why_closed"]

_STATEMENT_MS: Final = 2_000
_MOST: Final = 50
"""Requests and audit rows that are read of one job, the newest."""


def read_postgres(
    engine: Engine, job_id: str, records: FromRecords | None, reader: Identity | None
) -> FromPostgres:
    """Return what is stored of a job; a letter outside the bounds of `reader` is left out.

    Raises Taskyard's errors.
    """
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = {_STATEMENT_MS}"))
        row = _row(connection, job_id)
        audited = _audit_rows(connection, job_id)
        requests = _requests(connection, job_id, audited)
    letter = _letter(engine, _letter_of(job_id, records, row), reader)
    return FromPostgres(
        row=row,
        letter=letter,
        why_not=None if letter is None else replay_history_of(engine, letter).why_not,
        requests=requests,
        verbs={str(one["request_id"]): _who(one) for one in audited},
        applied=_applied(audited),
        old_queue=_old_queue(audited, records),
    )


def why_closed(engine: Engine, records: Records) -> str | None:
    """Return why the gate is closed; None if it is open."""
    with engine.connect() as connection:
        return Gate(records.settings.namespace, records.client).why_closed(connection)


def _row(connection: Connection, job_id: str) -> dict[str, Any] | None:
    try:
        return ledger.job(connection, job_id)
    except NotFound:
        return None


def _audit_rows(connection: Connection, job_id: str) -> list[Mapping[str, Any]]:
    query = (
        select(AUDIT)
        .where(AUDIT.c.target_request_id == job_id)
        .order_by(AUDIT.c.performed_at.desc(), AUDIT.c.id.desc())
        .limit(_MOST)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _who(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["operator_identity"], redact_text(row["reason"])


def _applied(audited: list[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return who did what to the job last, by action."""
    done = [row for row in reversed(audited) if row["outcome"] == Outcome.APPLIED]
    return {row["action_type"]: _who(row) for row in done}


def _old_queue(audited: list[Mapping[str, Any]], records: FromRecords | None) -> str:
    """Return the queue in which the job was before it was moved; empty if it is unknown.

    A job may be moved again before its message follows: that is still in the first of these queues.
    """
    requested = [row["detail"] or {} for row in audited if row["outcome"] == Outcome.REQUESTED]
    moved = [detail for detail in requested if "to_queue" in detail]
    first = "" if records is None else records.record.fields.get("moved_from", "")
    from_first = [
        one for one in moved if f"{one['epoch']}:{one['generation']}" == first.rpartition(":")[0]
    ]
    return next((str(detail["queue"]) for detail in from_first or moved), "")


def _requests(
    connection: Connection, job_id: str, audited: list[Mapping[str, Any]]
) -> tuple[OpenRequest, ...]:
    asked = {row["request_id"]: row for row in audited if row["outcome"] == Outcome.REQUESTED}
    query = (
        select(OUTBOX)
        .where(OUTBOX.c.job_id == job_id, OUTBOX.c.done_at.is_(None))
        .order_by(OUTBOX.c.position)
        .limit(_MOST)
    )
    return tuple(
        _request(row, asked.get(row["id"])) for row in connection.execute(query).mappings().all()
    )


def _request(row: Mapping[Any, Any], asked: Mapping[str, Any] | None) -> OpenRequest:
    operator, reason = ("", "") if asked is None else _who(asked)
    why = row["last_error"]
    return OpenRequest(
        request=row["id"],
        kind=row["kind"],
        at=row["created_at"],
        operator=operator,
        reason=reason,
        why=None if why is None else redact_text(why),
    )


def _letter_of(
    job_id: str, records: FromRecords | None, row: Mapping[str, Any] | None
) -> uuid.UUID | None:
    """Return the id of the dead letter that the job is now; None if it is none."""
    if records is not None and records.record.state is not State.NONE:
        record = records.record
        if record.state is not State.DEAD_LETTERED:
            return None
        return uuid.UUID(letter_id(job_id, record.epoch, record.generation))
    dead = row is not None and row["state"] == State.DEAD_LETTERED
    return row["letter_id"] if row is not None and dead else None


def _letter(
    engine: Engine, found: uuid.UUID | None, reader: Identity | None
) -> dict[str, Any] | None:
    if found is None:
        return None
    try:
        return letters.show(engine, found, identity=reader)
    except NotFound:
        return None
