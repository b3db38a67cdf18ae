"""Check Postgres: reachable, in UTF-8, new enough, its schema at head.

Alone because each server that `check` examines has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from taskyard import database
from taskyard.ops.cli.checks.finding import Finding

__all__ = ["look_at"]


def look_at(url: str) -> Iterator[Finding]:
    """Check the database at `url`; raises what `database.check` raises."""
    with (
        database.opened(url, application_name="taskyard check") as engine,
        engine.connect() as connection,
    ):
        version = connection.scalar(text("SHOW server_version"))
        fault = database.encoding_fault(connection)
    yield Finding.ok("Postgres", f"PostgreSQL {version} answers")
    if fault is not None:
        yield Finding.error("Postgres", fault, "", exit_code=3)
        return  # `migrate` would refuse this database too
    status = database.check(url)
    yield Finding.ok("Postgres", f"the schema is at {status.current}, as expected")
