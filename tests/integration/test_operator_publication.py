"""Our own app signs operator tasks as it publishes them: `celery call`, and beat."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from servers import Servers
from support.letters import died, make_delivery
from support.signing import WHY, Keeper
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker, environment_of
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Identity, Role
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.control import tokens
from taskyard.control.authenticate_operator import local_identity
from taskyard.control.rights import Rights
from taskyard.database import create_partitions
from taskyard.database.tables import AUDIT
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

# Each way of publishing starts Celery's own command.
pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

ADMIN = Identity("root@example.com", via="token:1", role=Role.ADMIN)
BEAT = f"""
from taskyard.workers.app import app
app.conf.beat_schedule = {{
    "nightly": {{"task": {REPLAY_TASK!r}, "schedule": 1.0, "kwargs": ARGUMENTS}}
}}
"""


class Scene:
    """A worker of the pool `ops`, and a shell that publishes with a token and its key."""

    def __init__(self, settings: Settings, keeper: Keeper, database: Engine, folder: Path):
        self.settings, self.keeper, self.database, self.folder = settings, keeper, database, folder
        self.harness = ServerHarness(settings)
        issued = tokens.create(
            database, keeper.subject, Rights(Role.OPERATOR), identity=ADMIN, reason=WHY
        )
        self.variables = {
            "TASKYARD_TOKEN": issued.token.reveal(),
            "TASKYARD_SIGNING_KEY": str(keeper.pem),
        }

    def letter(self) -> str:
        letter = died(self.harness.yard.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter.letter_id

    def environment(self, **changes: str) -> dict[str, str]:
        plain = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.folder)}
        found = {**plain, **environment_of(self.settings), **self.variables, **changes}
        return {name: value for name, value in found.items() if value}

    def call(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "celery", "-A", "taskyard.workers.app", "call", REPLAY_TASK]
        return subprocess.run(
            [*argv, *words],
            env=self.environment(**changes),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def result(self, job_id: str) -> Any:
        job = self.harness.yard.job(job_id)
        eventually(lambda: job.state() is not State.NONE, "its record")
        return job.result(SOON_S)

    def requested_by(self, letter_id: str) -> list[str]:
        query = select(AUDIT.c.operator_identity).where(
            AUDIT.c.dead_letter_id == uuid.UUID(letter_id), AUDIT.c.outcome == "requested"
        )
        with self.database.connect() as connection:
            return list(connection.scalars(query))


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    folder = tmp_path_factory.mktemp("publication")
    local = local_identity(Settings(trust_local=True)).subject
    keeper = Keeper(folder / "keys", more_subjects=(local,))
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        database_url=database_url,
        public_keys=keeper.ring,
        builtin_jobs=False,
    )
    with database.begin() as connection:
        create_partitions(connection, datetime.now(UTC))
    with Worker(settings, folder, queues=("ops",), modules=(HANDLERS,)).start():
        # Apart from the worker's folder, whose handlers this shell does not have.
        (folder / "shell").mkdir()
        made = Scene(settings, keeper, database, folder / "shell")
        yield made
        made.harness.close()


def test_celery_call_acts_as_the_bearer_of_the_token(scene: Scene) -> None:
    letter_id = scene.letter()
    ran = scene.call("--kwargs", json.dumps({"letter_id": letter_id, "reason": WHY}))
    assert ran.returncode == 0, ran.stderr
    assert scene.result(ran.stdout.strip())["letter_id"] == letter_id
    assert scene.requested_by(letter_id) == [scene.keeper.subject]


def test_celery_call_acts_as_the_local_user_where_that_is_trusted(scene: Scene) -> None:
    letter_id = scene.letter()
    ran = scene.call(
        "--args",
        json.dumps([{"letter_id": letter_id, "reason": WHY}]),
        TASKYARD_TOKEN="",
        TASKYARD_TRUST_LOCAL="1",
    )
    assert ran.returncode == 0, ran.stderr
    scene.result(ran.stdout.strip())
    assert scene.requested_by(letter_id) == [local_identity(Settings(trust_local=True)).subject]


def test_a_credential_that_is_there_is_sent_as_it_is(scene: Scene) -> None:
    letter_id = scene.letter()
    arguments = scene.keeper.signed(scene.settings, {"letter_id": letter_id, "reason": WHY})
    ran = scene.call("--kwargs", json.dumps(arguments), TASKYARD_SIGNING_KEY="")
    assert ran.returncode == 0, ran.stderr
    scene.result(ran.stdout.strip())
    assert scene.requested_by(letter_id) == [scene.keeper.subject]


def test_what_cannot_be_signed_is_not_published_and_says_why_in_one_sentence(
    scene: Scene,
) -> None:
    kwargs = ("--kwargs", json.dumps({"letter_id": scene.letter(), "reason": WHY}))
    for words, changes, said in (
        (kwargs, {"TASKYARD_SIGNING_KEY": ""}, "TASKYARD_SIGNING_KEY is not set"),
        (kwargs, {"TASKYARD_TOKEN": ""}, "there is no verified identity"),
        (kwargs, {"TASKYARD_TOKEN": "ty_000000000000_" + "A" * 43}, "is not in this database"),
        (("--kwargs", "{}"), {}, "needs the named argument 'letter_id'"),
        (("--args", "[1, 2]"), {}, "takes only named arguments, got 2 positional ones"),
    ):
        ran = scene.call(*words, **changes)
        assert ran.returncode == 6
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
        assert ran.stdout == ""


def test_beat_signs_each_message_anew(scene: Scene) -> None:
    letter_id = scene.letter()
    arguments = {"letter_id": letter_id, "reason": WHY}
    (scene.folder / "nightly.py").write_text(BEAT.replace("ARGUMENTS", repr(arguments)))
    argv = [sys.executable, "-m", "celery", "-A", "nightly", "beat", "--loglevel", "DEBUG"]
    log = scene.folder / "beat.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            argv, env=scene.environment(), cwd=scene.folder, stdout=file, stderr=file
        ) as beat,
    ):
        try:
            eventually(lambda: scene.requested_by(letter_id), "beat's message", why=log.read_text)
        finally:
            beat.terminate()
    assert scene.requested_by(letter_id) == [scene.keeper.subject]
    assert CREDENTIAL not in log.read_text()
