"""Tasks of clients that know nothing of Taskyard are run, recorded, dead-lettered and replayed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine

from servers import Servers, require_or_skip
from support.legacy import Legacy
from support.mirror import mirroring, stored_letters
from support.relay import relaying
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.control import replay
from taskyard.control.authenticate_operator import local_identity
from taskyard.ledger import history

pytestmark = pytest.mark.slow

CELERY_NODE = "celery-node@0.5.9"
SCRIPT = Path(__file__).parents[1] / "support" / "foreign.js"


@dataclass
class ServerHarness:
    """The app, protected, with everything behind it running."""

    app: Legacy
    database: Engine

    def letters(self, job_id: str) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return stored_letters(connection, job_id)

    def await_letter(self, job_id: str, count: int = 1) -> dict[str, Any]:
        eventually(lambda: len(self.letters(job_id)) >= count, "a letter", why=self.app.logs)
        return self.letters(job_id)[-1]

    def await_story(self, job_id: str, *events: str) -> None:
        """Wait until the ledger's history of a job ends with these events."""

        def reported() -> list[str]:
            with self.database.connect() as connection:
                return [event["event"] for event in history(connection, job_id)]

        eventually(
            lambda: reported()[-len(events) :] == list(events), f"{events}", why=self.app.logs
        )

    def replay(self, letter: dict[str, Any]) -> None:
        replay(
            self.database,
            letter["id"],
            identity=local_identity(self.app.settings),
            reason="the cause is mended, so it can run now",
        )


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def yard(
    request: pytest.FixtureRequest,
    servers: Servers,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerHarness]:
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=broker, trust_local=True)
    app = Legacy("protect", broker, url, settings, tmp_path_factory.mktemp("foreign"))
    try:
        app.worker()
        with mirroring(settings, database_url) as database, relaying(settings, database):
            yield ServerHarness(app, database)
    finally:
        app.close()


def by_send_task(yard: ServerHarness, task: str, arguments: list[Any]) -> str:
    """A Celery app that knows only names."""
    with Celery("stranger", broker=yard.app.broker, set_as_current=False) as stranger:
        sent = stranger.send_task(task, arguments, queue=f"{yard.app.prefix}.work")
        return str(sent.id)


def by_hand(yard: ServerHarness, task: str, arguments: list[Any]) -> str:
    """The least that protocol 2 asks for, without any library of Celery's."""
    job_id = str(uuid.uuid4())
    headers = {"lang": "by hand", "task": task, "id": job_id}
    body = json.dumps([arguments, {}, {}]).encode()
    yard.app.at_broker.push(f"{yard.app.prefix}.work", headers, body)
    return job_id


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """celery-node in a folder of its own; without npm this skips locally and fails in CI."""
    npm = require_or_skip("npm")
    folder = tmp_path_factory.mktemp("node")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", CELERY_NODE],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=200,
    )
    return folder


def by_node(yard: ServerHarness, folder: Path, task: str, arguments: list[Any]) -> list[str]:
    """celery-node publishes and waits: the id, then what it got."""
    script = shutil.copy(SCRIPT, folder)
    argv = [str(require_or_skip("node")), script, yard.app.broker, yard.app.backend]
    ran = subprocess.run(
        [*argv, f"{yard.app.prefix}.work", task, json.dumps(arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split("\n")


@pytest.mark.parametrize("send", [by_send_task, by_hand])
def test_it_is_run_and_recorded(yard: ServerHarness, send: Any) -> None:
    job_id = send(yard, "legacy.add", [1, 2])
    record = yard.app.await_state(job_id, "completed")
    assert record["type"] == "legacy.add"
    yard.await_story(job_id, "begin", "complete")


@pytest.mark.parametrize("send", [by_send_task, by_hand])
def test_it_is_dead_lettered_and_replayed(yard: ServerHarness, send: Any) -> None:
    # The third run is the first of the replay that succeeds: it had three before it.
    job_id = send(yard, "legacy.insist", [4])
    letter = yard.await_letter(job_id)
    assert (letter["failure_category"], letter["generation"]) == ("retry_exhausted", 0)
    assert letter["queue"] == f"{yard.app.prefix}.work"
    yard.replay(letter)
    yard.app.await_state(job_id, "completed")
    yard.await_story(job_id, "replay", "begin", "complete")


def test_a_replay_has_all_of_celerys_retries_again(yard: ServerHarness) -> None:
    job_id = by_send_task(yard, "legacy.insist", [99])
    yard.replay(yard.await_letter(job_id))
    yard.await_letter(job_id, 2)
    assert len(yard.app.notes(f"{job_id}:runs")) == 6


def test_celery_node_gets_its_result(yard: ServerHarness, node_modules: Path) -> None:
    job_id, result, *_ = by_node(yard, node_modules, "legacy.add", [1, 2])
    assert json.loads(result) == 3
    yard.await_story(job_id, "begin", "complete")


def test_celery_nodes_failure_is_dead_lettered_and_replayed(
    yard: ServerHarness, node_modules: Path
) -> None:
    job_id, reported, *_ = by_node(yard, node_modules, "legacy.fail", ["from afar"])
    assert reported.startswith("failed:")
    letter = yard.await_letter(job_id)
    assert letter["failure_category"] == "non_retryable"
    yard.replay(letter)
    assert yard.await_letter(job_id, 2)["generation"] == 1
