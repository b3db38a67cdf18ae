"""`taskyard jobs list --queue` takes the queues of installed apps, which only the ledger knows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from servers import Servers
from support.shell import Shell
from taskyard.database import engine
from taskyard.database.tables import LEDGER


@pytest.fixture(scope="module")
def shell(servers: Servers, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    database = engine(database_url)
    with database.begin() as connection:
        connection.execute(
            LEDGER.insert().values(
                job_id="of-an-app",
                epoch=1,
                version=1,
                state="completed",
                generation=0,
                seq=0,
                queue="billing.low",
                updated_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    database.dispose()
    url = servers.valkey_url()
    variables = {
        "TASKYARD_REDIS_URL": url,
        "TASKYARD_BROKER_URL": url,
        "TASKYARD_DATABASE_URL": database_url,
    }
    return Shell(tmp_path_factory.mktemp("shell"), variables)


def test_a_queue_that_the_ledger_knows_is_listed(shell: Shell) -> None:
    (row,) = shell.run("jobs", "list", "--queue", "billing.low", "--json").document
    assert row["job_id"] == "of-an-app"


def test_a_known_queue_without_a_job_that_fits_is_an_empty_list(shell: Shell) -> None:
    ran = shell.run("jobs", "list", "--queue", "billing.low", "--state", "failed", "--json")
    assert (ran.code, ran.document) == (0, [])


def test_a_configured_queue_without_jobs_is_an_empty_list(shell: Shell) -> None:
    ran = shell.run("jobs", "list", "--queue", "plan", "--json")
    assert (ran.code, ran.document) == (0, [])


def test_a_queue_that_nobody_knows_is_refused_with_the_configured_ones(shell: Shell) -> None:
    ran = shell.run("jobs", "list", "--queue", "billing.lo")
    assert ran.code == 2
    assert "there is no queue 'billing.lo'. Known: exec, locator, ops, plan." in ran.err
