"""`taskyard check` tells of letters that wait, in Postgres and before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support.letters import make_delivery, make_letter
from support.shell import Shell
from support.worker import environment_of
from taskyard.deadletters import LetterBox
from taskyard.mirror.store_letters import store_letters
from taskyard.ops.cli.checks import dead_letters
from taskyard.ops.cli.checks.finding import Finding, Level
from taskyard.settings import Settings

pytestmark = pytest.mark.usefixtures("empty_database")


@pytest.fixture(params=["redis", "rabbitmq"])
def place(
    request: pytest.FixtureRequest, settings: Settings, servers: Servers, database_url: str
) -> Settings:
    broker = servers.rabbitmq_url() if request.param == "rabbitmq" else settings.broker_url
    return settings.model_copy(update={"database_url": database_url, "broker_url": broker})


def store(database: Engine, count: int, escalate_to: str | None = None) -> None:
    made = [make_letter(escalate_to=escalate_to) for _ in range(count)]
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter) for letter in made])


def found(settings: Settings) -> list[Finding]:
    return list(dead_letters.look_at(settings))


def test_letters_that_wait_are_counted_by_status(place: Settings, database: Engine) -> None:
    store(database, 2)
    store(database, 1, escalate_to="reviews")
    (finding,) = found(place)
    assert (finding.level, finding.subject) == (Level.WARNING, "letters")
    assert finding.detail == "3 wait for an operator (1 manual_review, 2 pending)"
    assert finding.remedy == "See: taskyard dlq list"


def test_letters_that_postgres_has_not_heard_of_are_told_too(
    place: Settings, database: Engine
) -> None:
    box = LetterBox(place)
    box.post(make_letter())
    box.close()
    none, waiting = found(place)
    assert (none.level, none.detail) == (Level.OK, "none waits for an operator")
    assert waiting.level is Level.WARNING
    assert waiting.detail == "1 waits for the mirror, not yet in Postgres"
    assert waiting.remedy == "If they still wait later, start a mirror: taskyard mirror"


def test_a_count_that_takes_too_long_is_unknown(settings: Settings, database: Engine) -> None:
    url = database.url.render_as_string(hide_password=False)
    with database.begin() as connection:
        connection.execute(text("LOCK TABLE dead_letter_queue IN ACCESS EXCLUSIVE MODE"))
        (finding,) = found(settings.model_copy(update={"database_url": url}))
    assert finding.level is Level.WARNING
    assert finding.detail == (
        "it is unknown how many wait for an operator: not counted within 2000 ms"
    )  # fmt: skip


def test_a_count_that_postgres_refuses_is_unknown_with_its_reason(
    settings: Settings, database: Engine
) -> None:
    url = database.url.render_as_string(hide_password=False)
    right = "SELECT ON dead_letter_queue"
    with database.begin() as connection:
        connection.execute(text(f"REVOKE {right} FROM CURRENT_USER"))
    try:
        (finding,) = found(settings.model_copy(update={"database_url": url}))
    finally:
        with database.begin() as connection:
            connection.execute(text(f"GRANT {right} TO CURRENT_USER"))
    assert finding.detail == (
        "it is unknown how many wait for an operator: permission denied for table dead_letter_queue"
    )  # fmt: skip


def test_without_postgres_the_count_is_unknown_and_not_none(
    settings: Settings, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, environment_of(settings))
    ran = shell.run("check", TASKYARD_DATABASE_URL="postgresql://127.0.0.1:1/nothing")
    assert ran.code == 3
    assert (
        "! letters    it is unknown how many wait for an operator: Postgres could not be" in ran.out
    )
    assert "none waits for an operator" not in ran.out
