"""Postgres: reachable, new enough, its schema at head."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from taskyard import database
from taskyard.ops.cli.checks.finding import Finding

__all__ = ["look_at"]


def look_at(url: str) -> Iterator[Finding]:
    """What is to be said about the database at `url`; raises what `database.check` raises."""
    with (
        database.opened(url, application_name="taskyard check") as engine,
        engine.connect() as connection,
    ):
        version = connection.scalar(text("SHOW server_version"))
    yield Finding.ok("Postgres", f"PostgreSQL {version} answers")
    status = database.check(url)
    yield Finding.ok("Postgres", f"the schema is at {status.current}, as expected")
