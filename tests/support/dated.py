"""A database with a place for the letters and jobs that tests date, and its emptying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from support.letters import DIED_US
from taskyard.clock import from_us
from taskyard.database import create_partitions, opened

__all__ = ["dated", "truncate"]

TABLES = "dead_letter_queue, outbox, job_ledger, job_events, lifecycle_rejects"


@contextmanager
def dated(url: str) -> Iterator[Engine]:
    """An engine on `url`; the week of `DIED_US` has its partitions."""
    with opened(url) as engine:
        with engine.begin() as connection:
            create_partitions(connection, from_us(DIED_US))
        yield engine


def truncate(database: Engine) -> None:
    """Delete all that is known of letters and jobs; the audit log cannot be truncated."""
    with database.begin() as connection:
        connection.execute(text(f"TRUNCATE {TABLES}"))
