"""A worker signs nothing: what it publishes, a stranger may have asked for in a message."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.legacy_broker import RabbitBroker, RedisBroker
from support.letters import died, make_delivery
from support.signing import WHY, Keeper
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.access import Token
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.audit import list_unverified
from taskyard.broker import is_amqp
from taskyard.control.authenticate_operator import local_identity
from taskyard.database import create_partitions
from taskyard.database.tables import AUDIT, UNVERIFIED
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.settings import Settings

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


class Scene:
    """A worker whose processes hold a key, and a client that can publish and has none."""

    def __init__(self, settings: Settings, database: Engine, worker: Worker):
        self.settings, self.database, self.worker = settings, database, worker
        self.harness = ServerHarness(settings)
        rabbit = is_amqp(settings)
        self.broker = RabbitBroker(settings) if rabbit else RedisBroker(settings)
        self.queue = settings.broker_name("exec") if rabbit else list_key(settings, "exec")

    def letter(self) -> str:
        letter = died(self.harness.yard.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter.letter_id

    def continuation(self, letter_id: str) -> dict[str, Any]:
        return {
            "task": REPLAY_TASK,
            "args": [],
            "kwargs": {"letter_id": letter_id, "reason": WHY},
            "options": {
                "queue": self.settings.broker_name("ops"),
                "task_id": str(uuid.uuid4()),
            },
            "subtask_type": None,
            "immutable": True,
        }

    def publish(self, payload: dict[str, Any], embed: dict[str, Any], **headers: Any) -> str:
        job_id = str(uuid.uuid4())
        none = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        body = json.dumps([[payload], {}, {**none, **embed}]).encode()
        known = {"id": job_id, "task": "raw_act", "lang": "py", "root_id": job_id, **headers}
        self.broker.push(self.queue, known, body)
        return job_id

    def audited(self) -> list[str]:
        with self.database.connect() as connection:
            return list(connection.scalars(AUDIT.select().with_only_columns(AUDIT.c.outcome)))

    def unsigned(self) -> int:
        rows = list_unverified(self.database, None, 100)
        return sum(row["count"] for row in rows if row["why"] == "unsigned")

    def close(self) -> None:
        self.broker.close()
        self.harness.close()


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    empty_database: Engine,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    local = local_identity(Settings(trust_local=True)).subject
    keeper = Keeper(tmp_path / "keys", more_subjects=(local,))
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        database_url=database_url,
        public_keys=keeper.ring,
    )
    with empty_database.begin() as connection:
        create_partitions(connection, datetime.now(UTC))
        connection.execute(UNVERIFIED.delete())
    worker = Worker(
        settings,
        tmp_path,
        queues=("ops", "exec"),
        modules=("support.key_in_worker", HANDLERS),
        environment={"SEAM_SIGNING_KEY": str(keeper.pem)},
    )
    with worker.start():
        made = Scene(settings, empty_database, worker)
        yield made
        made.close()


def test_no_continuation_in_a_strangers_message_is_signed(scene: Scene) -> None:
    letter_id = scene.letter()

    def make() -> dict[str, Any]:
        made.append(scene.continuation(letter_id))
        return made[-1]

    made: list[dict[str, Any]] = []
    group = {
        "task": "celery.group",
        "args": [],
        "kwargs": {"tasks": [make(), make()]},
        "options": {},
        "subtask_type": "group",
        "immutable": True,
    }
    scene.publish({}, {"callbacks": [make()]})
    scene.publish({}, {"callbacks": [make(), make()]})
    scene.publish({}, {"callbacks": [group]})
    scene.publish({}, {"chain": [make()]})
    failing = {"do": "fail", "label": str(uuid.uuid4())}
    scene.publish(failing, {"errbacks": [make()]}, task="exec_act")
    ids = [one["options"]["task_id"] for one in made]
    eventually(
        lambda: scene.unsigned() + len(scene.audited()) >= len(made),
        "a denial for each continuation",
        within_s=SOON_S,
        why=lambda: f"{scene.unsigned()} {scene.audited()}\n{scene.worker.log[-4000:]}",
    )
    for job_id in ids:
        scene.harness.await_state(scene.harness.yard.job(job_id), State.DEAD_LETTERED)
    assert scene.unsigned() == len(made)
    assert scene.audited() == []


@pytest.mark.parametrize("source", ["variable", "file"])
@pytest.mark.parametrize("name", ["signing_key", "token"])
def test_a_worker_that_would_hold_an_operators_credential_does_not_start(
    servers: Servers, tmp_path: Path, name: str, source: str
) -> None:
    keeper = Keeper(tmp_path / "keys")
    held = str(keeper.pem) if name == "signing_key" else Token.new().reveal()
    variables = {f"TASKYARD_{name.upper()}": held} if source == "variable" else {}
    if source == "file":
        (tmp_path / "taskyard.toml").write_text(f"{name} = {json.dumps(held)}\n")
    settings = fresh_settings(servers.valkey_url())
    with Worker(settings, tmp_path, queues=("exec",), environment=variables) as worker:
        worker.launch()
        assert worker.wait() != 0
        assert f"a worker must not hold an operator's credential, got: {name}." in worker.log
        assert "Traceback" not in worker.log
        assert held not in worker.log
