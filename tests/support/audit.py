"""Rows of the audit log, and sealers that note what they export."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, text

from taskyard import audit
from taskyard.access import Action
from taskyard.audit import Entry, Head, Outcome, Sealer
from taskyard.audit.seal_chain import GENESIS, Seal, append, seals_after

__all__ = [
    "age_seals",
    "count_of",
    "entry",
    "sealed",
    "sealer",
    "with_triggers",
    "without_triggers",
    "write",
]


_AGE = text(
    "UPDATE operator_audit_log SET performed_at = performed_at - make_interval(days => :days) "
    "WHERE request_id = :request"
)


def entry(**changes: Any) -> Entry:
    """A row with every column filled."""
    values: dict[str, Any] = {
        "request_id": uuid.uuid4(),
        "action_type": Action.CONTROLLED_REPLAY,
        "operator_identity": "ops@example.com",
        "identity_via": "token:1a2b",
        "on_behalf_of": "customer@example.com",
        "reason": "Infrastructure recovered after 2-hour outage",
        "target_request_id": "job-1",
        "dead_letter_id": uuid.uuid4(),
        "outcome": Outcome.REQUESTED,
        "detail": {"queue": "exec", "n": 1.50, "text": 'ü "\\n'},
    }
    return Entry(**{**values, **changes})


def write(database: Engine, count: int = 1, age_days: int = 0, **changes: Any) -> None:
    """Commit rows, a transaction each, as if they were written `age_days` ago."""
    for _ in range(count):
        with database.begin() as connection:
            made = entry(**changes)
            audit.write(connection, made)
            if age_days:
                without_triggers(connection)
                connection.execute(_AGE, {"days": age_days, "request": made.request_id})
                with_triggers(connection)


def sealer(database: Engine, exported: list[Seal] | None = None) -> Sealer:
    """A sealer that appends what it exports."""
    return Sealer(database, ([] if exported is None else exported).append)


def sealed(database: Engine) -> Head:
    """Seal all that is committed; the head."""
    heads: list[Seal] = []
    sealer(database, heads).run_once()
    return Head(heads[-1].seq, heads[-1].hash)


def age_seals(database: Engine, days: int) -> Head:
    """Make the chain as if its seals were made `days` ago; its new head."""
    with database.begin() as owner:
        without_triggers(owner)
        seals = [seal for page in seals_after(owner, 0) for seal in page]
        owner.execute(text("DELETE FROM audit_seals"))
        last = None
        for seal in seals:
            aged = replace(seal, sealed_us=seal.sealed_us - days * 86_400_000_000)
            linked = replace(aged, prev_hash=GENESIS if last is None else last.hash)
            last = replace(linked, hash=linked.digest())
            append(owner, last)
        with_triggers(owner)
    assert last is not None
    return Head(last.seq, last.hash)


def count_of(database: Engine, query: str, **values: Any) -> int:
    """The number that a query answers."""
    with database.connect() as connection:
        return int(connection.scalar(text(query), values) or 0)


def without_triggers(connection: Connection) -> None:
    """What only the owner of the tables can do, in the caller's transaction."""
    for table in ("operator_audit_log", "audit_seals"):
        connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))


def with_triggers(connection: Connection) -> None:
    """As they were before."""
    for table in ("operator_audit_log", "audit_seals"):
        connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER ALL"))
        enable = f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only"
        connection.execute(text(enable))
