"""The inbox: in the handler's own transaction, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from taskyard.inbox import create_table, expire, once


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'handler.db'}"
    else:
        url = request.getfixturevalue("database_url")
    made = create_engine(url)
    with made.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS taskyard_inbox"))
        create_table(connection)
        create_table(connection)
    yield made
    made.dispose()


def test_a_step_is_reached_once_and_other_steps_and_jobs_are_their_own(database: Engine) -> None:
    with database.begin() as connection:
        assert once(connection, "job:1", "main")
        assert not once(connection, "job:1", "main")
        assert once(connection, "job:1", "mail")
        assert once(connection, "job:2", "main")
    with database.begin() as connection:
        assert not once(connection, "job:1", "main")


def test_a_transaction_that_is_rolled_back_was_never_there(database: Engine) -> None:
    with database.connect() as connection:
        assert once(connection, "job:1")
        connection.rollback()
    with database.begin() as connection:
        assert once(connection, "job:1")


def test_a_session_serves_as_well_as_a_connection(database: Engine) -> None:
    with Session(database) as session:
        assert once(session, "job:1")
        session.commit()
    with Session(database) as session:
        assert not once(session, "job:1")


def test_old_steps_are_forgotten_and_young_ones_kept(database: Engine) -> None:
    now = datetime.now(UTC)
    with database.begin() as connection:
        once(connection, "job:1")
        assert expire(connection, now - timedelta(days=1)) == 0
        assert expire(connection, now + timedelta(days=1)) == 1
        assert once(connection, "job:1")


def test_of_two_transactions_at_once_one_applies(database_url: str) -> None:
    database = create_engine(database_url)
    with database.begin() as connection:
        create_table(connection)
    answers: list[bool] = []

    def second() -> None:
        with database.begin() as connection:
            answers.append(once(connection, "job:race"))

    with database.begin() as first:
        assert once(first, "job:race")
        other = threading.Thread(target=second)
        other.start()
        assert answers == []
    other.join(timeout=30)
    assert answers == [False]
    database.dispose()
