"""`once`: the first transaction that names a step of a job gets True, every later one False.

The row is written in the caller's own transaction: the row and the handler's effect are committed
together or not at all. A second transaction at the same moment waits for the first to end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, DateTime, MetaData, Table, Text, delete, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, scoped_session

from taskyard.errors import InvalidSettings

__all__ = ["TABLE", "create_table", "expire", "once"]

Handle = Connection | Session | scoped_session[Any]

TABLE: Final = Table(
    "taskyard_inbox",
    MetaData(),
    Column("job_key", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column(
        "done_at", DateTime(timezone=True), nullable=False, index=True, server_default=func.now()
    ),
)


def create_table(connection: Connection) -> None:
    """Create `taskyard_inbox` in the handler's database if it does not exist."""
    TABLE.create(connection, checkfirst=True)


def once(handle: Handle, job_key: str, step: str = "main") -> bool:
    """Return True the first time that `step` of the job is reached in a transaction that commits.

    `job_key` is `<job id>:<epoch>`. Works on PostgreSQL and SQLite; raises `InvalidSettings` on
    another database.
    """
    connection = _connection(handle)
    values = {"job_key": job_key, "step": step}
    match connection.dialect.name:
        case "postgresql":
            result = connection.execute(
                postgresql.insert(TABLE).values(values).on_conflict_do_nothing()
            )
        case "sqlite":
            result = connection.execute(
                sqlite.insert(TABLE).values(values).on_conflict_do_nothing()
            )
        case other:
            raise InvalidSettings(f"the inbox works on PostgreSQL and SQLite, got {other!r}")
    return result.rowcount == 1


def expire(handle: Handle, before: datetime) -> int:
    """Delete steps that were done before `before`; return how many.

    Keep a step longer than its job may be replayed: a replay after the deletion applies the step's
    effect again.
    """
    return _connection(handle).execute(delete(TABLE).where(TABLE.c.done_at < before)).rowcount


def _connection(handle: Handle) -> Connection:
    return handle if isinstance(handle, Connection) else handle.connection()
