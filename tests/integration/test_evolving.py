"""Changes over rows that are there: the examples of docs/evolving.md, and our own migrations."""

from __future__ import annotations

import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from servers import Servers
from support.databases import new_database
from support.letters import make_delivery, make_letter
from taskyard.access import Action
from taskyard.database import create_partitions, engine, migrate
from taskyard.jobs import Category
from taskyard.mirror.store_letters import store_letters
from taskyard.wire import Letter

# The package's attribute of that name is the function.
migrations = sys.modules[migrate.__module__]
PAGE = Path(__file__).parents[2] / "docs" / "evolving.md"
NOW = datetime.now(UTC)


def example(title: str) -> str:
    """The migration under a title of the page."""
    part = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2]
    block = re.search(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture
def database(servers: Servers) -> Iterator[Engine]:
    """An empty database."""
    made = engine(new_database(servers))
    yield made
    made.dispose()


def to(database: Engine, version: str = "head") -> None:
    migrate(database.url.render_as_string(hide_password=False), version)


def run(database: Engine, statement: str, **values: Any) -> None:
    with database.begin() as connection:
        connection.execute(text(statement), values)


def column(database: Engine, query: str) -> list[Any]:
    with database.connect() as connection:
        return list(connection.scalars(text(query)))


Upgrade = Callable[[str], tuple[Callable[[], None], Callable[[], None]]]


@pytest.fixture
def adding(database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    """Bring the database to head, and return how one goes on by an example, and back."""
    to(database)
    head = migrations._versions()[-1]
    newer = f"{int(head) + 1:04d}"

    def add(title: str) -> tuple[Callable[[], None], Callable[[], None]]:
        folder = tmp_path / "migrations"
        shutil.copytree(migrations._FOLDER, folder)
        source = example(title).replace('revision = "0042"', f'revision = "{newer}"', 1)
        source = source.replace('down_revision = "0041"', f'down_revision = "{head}"')
        (folder / "versions" / f"{newer}_example.py").write_text(source)
        monkeypatch.setattr(migrations, "_FOLDER", folder)
        return lambda: to(database), lambda: to(database, head)

    return add


def old_letter(database: Engine, decided_at: datetime, category: str = "timeout") -> None:
    """As a mirror writes one that knows nothing of later columns."""
    run(
        database,
        "INSERT INTO dead_letter_queue (id, decided_at, original_request_id, epoch, generation, "
        "job_type, queue, body, failure_category, failure_reason, replay_eligible) "
        "VALUES (:id, :at, 'job', 1, 0, 'plan', 'plan', 'x', :category, 'x', true)",
        id=uuid.uuid4(),
        at=decided_at,
        category=category,
    )


def old_job(database: Engine, epoch_us: int) -> None:
    run(
        database,
        "INSERT INTO job_ledger (job_id, epoch, version, state, updated_at) "
        "VALUES (:job, :epoch, 1, 'accepted', now())",
        job=str(uuid.uuid4()),
        epoch=epoch_us,
    )


def audited(database: Engine, action: str) -> None:
    run(
        database,
        "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
        "identity_via, reason, outcome) "
        "VALUES (gen_random_uuid(), :action, 'a', 'b', 'c', 'applied')",
        action=action,
    )


def with_a_week(database: Engine, at: datetime = NOW) -> None:
    with database.begin() as connection:
        create_partitions(connection, at)


def test_a_field_comes_to_old_rows_of_every_week_and_goes_again(
    database: Engine, adding: Upgrade
) -> None:
    with_a_week(database)
    for at in (NOW, NOW - timedelta(days=900)):  # in a week, and in none
        old_letter(database, at)
        old_job(database, int(at.timestamp() * 1_000_000))
    up, down = adding("A field")
    up()
    for table in ("dead_letter_queue", "job_ledger"):
        assert column(database, f"SELECT tenant FROM {table}") == [None, None]  # noqa: S608
    old_letter(database, NOW)  # by a mirror of the version before
    run(database, "UPDATE dead_letter_queue SET tenant = 'acme'")
    with_a_week(database, NOW - timedelta(days=60))
    old_letter(database, NOW - timedelta(days=60))
    assert sorted(map(str, column(database, "SELECT tenant FROM dead_letter_queue"))) == [
        "None", "acme", "acme", "acme",
    ]  # fmt: skip
    down()
    assert len(column(database, "SELECT id FROM dead_letter_queue")) == 4
    with pytest.raises(Exception, match="tenant"):
        column(database, "SELECT tenant FROM dead_letter_queue")


def test_our_own_field_came_to_old_rows(database: Engine) -> None:
    to(database, "0005")
    old_letter(database, NOW)
    old_job(database, 1)
    to(database)
    for table in ("dead_letter_queue", "job_ledger"):
        assert column(database, f"SELECT domain FROM {table}") == [None]  # noqa: S608
    with database.begin() as connection:
        store_letters(connection, [make_delivery(make_letter(domain="billing"))])
    assert column(database, "SELECT domain FROM dead_letter_queue WHERE domain IS NOT NULL") == [
        "billing"
    ]
    to(database, "0005")
    assert len(column(database, "SELECT id FROM dead_letter_queue")) == 2


def test_a_letter_without_the_field_and_one_with_a_later_field_are_read() -> None:
    document = make_letter().model_dump(mode="json")
    del document["domain"]
    assert Letter.model_validate(document).domain is None
    assert Letter.model_validate({**document, "tenant": "acme"}).domain is None


def test_a_category_comes_beside_old_letters_and_goes_without_them(
    database: Engine, adding: Upgrade
) -> None:
    with_a_week(database)
    for category in Category:
        old_letter(database, NOW, category.value)
    up, down = adding("A category")
    with pytest.raises(IntegrityError, match="dead_letter_queue_category"):
        old_letter(database, NOW, "quota_exceeded")
    up()
    for category in ("quota_exceeded", *Category):
        old_letter(database, NOW, category)
    with_a_week(database, NOW - timedelta(days=60))
    old_letter(database, NOW - timedelta(days=60), "quota_exceeded")
    for at in (NOW, NOW - timedelta(days=60), NOW - timedelta(days=900)):
        with pytest.raises(IntegrityError, match="dead_letter_queue_category"):
            old_letter(database, at, "unheard_of")
    down()
    kept = column(database, "SELECT failure_category FROM dead_letter_queue")
    assert kept.count("quota_exceeded") == 2
    with pytest.raises(IntegrityError, match="dead_letter_queue_category"):
        old_letter(database, NOW, "quota_exceeded")
    old_letter(database, NOW, "timeout")


def test_a_mirror_of_the_version_before_keeps_the_whole_of_a_letter_that_it_cannot_read(
    database: Engine,
) -> None:
    to(database)
    body = make_letter().encode().replace(b'"retry_exhausted"', b'"quota_exceeded"')
    with database.begin() as connection:
        store_letters(connection, [make_delivery(body)])
    with database.connect() as connection:
        row = connection.execute(
            text("SELECT failure_category, raw_envelope FROM dead_letter_queue")
        ).one()
    assert row.failure_category == "undecodable"
    assert bytes(row.raw_envelope) == body


def test_an_action_comes_beside_old_rows_which_nothing_touches(
    database: Engine, adding: Upgrade
) -> None:
    for action in Action:
        audited(database, action.value)
    before = column(database, "SELECT t::text FROM operator_audit_log AS t ORDER BY id")
    up, down = adding("An action")
    with pytest.raises(IntegrityError, match="operator_audit_log_action"):
        audited(database, "snooze_queue")
    up()
    for action in ("snooze_queue", *Action):
        audited(database, action)
    with pytest.raises(IntegrityError, match="operator_audit_log_action"):
        audited(database, "unheard_of")
    down()
    with pytest.raises(IntegrityError, match="operator_audit_log_action"):
        audited(database, "snooze_queue")
    after = column(database, "SELECT t::text FROM operator_audit_log AS t ORDER BY id")
    assert after[: len(before)] == before
    assert len(after) == 2 * len(before) + 1
    with pytest.raises(ProgrammingError, match="append-only"):
        run(database, "DELETE FROM operator_audit_log")


def test_our_own_actions_came_beside_old_rows(database: Engine) -> None:
    to(database, "0002")
    for action in ("controlled_replay", "accept_restore"):
        audited(database, action)
    to(database)
    for action in Action:
        audited(database, action.value)
    to(database, "0002")
    kept = column(database, "SELECT action_type FROM operator_audit_log ORDER BY id")
    assert kept == ["controlled_replay", "accept_restore", *Action]
