"""SIGKILL around each step of an operator's message: the next worker finishes it, once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from servers import Servers
from support.letters import died, make_delivery
from support.operator_seams import STEPS
from support.relay import relaying
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.signing import WHY, Keeper, send_replay
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.audit import list_unverified, rows_of
from taskyard.database import create_partitions
from taskyard.database.tables import AUDIT, OUTBOX, UNVERIFIED
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters

# Kills of whole workers: each waits for the next one to take over.
pytestmark = pytest.mark.slow

# The next worker gets a dead one's message after this; the heartbeat alone would take 10 s.
VISIBILITY_S = 2
SEAMS = (
    "before accept",
    *(f"after {step}" for step in STEPS),
    "before finish",
    "after finish",
    "before acknowledge",
)


@dataclass
class Scene:
    """A worker that is one process, so that a kill at a seam is the whole worker's."""

    harness: ServerHarness
    worker: Worker
    seams: Path
    keeper: Keeper
    database: Engine


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    folder = tmp_path_factory.mktemp("kills")
    keeper = Keeper(folder / "keys")
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        database_url=database_url,
        public_keys=keeper.ring,
        visibility_timeout_s=VISIBILITY_S,
        lease_s=2,
        death_limit=20,
    )
    seams = folder / "armed"
    seams.mkdir()
    worker = Worker(
        settings,
        folder,
        queues=("ops",),
        modules=("support.seams", "support.operator_seams", HANDLERS),
        options=("--pool", "solo"),
        environment={FOLDER_VARIABLE: str(seams)},
    )
    with database.begin() as connection:
        create_partitions(connection, datetime.now(UTC))
    harness = ServerHarness(settings)
    with worker.start(), relaying(settings, database):
        yield Scene(harness, worker, seams, keeper, database)
    harness.close()


@pytest.mark.parametrize("seam", SEAMS)
def test_an_operators_message_whose_worker_is_killed_is_finished_by_the_next_one_once(
    scene: Scene, seam: str
) -> None:
    letter = died(scene.harness.yard.records)
    with scene.database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    settings = scene.harness.settings
    kwargs = scene.keeper.signed(settings, {"letter_id": letter.letter_id, "reason": WHY})
    arm(scene.seams, seam)
    job_id = send_replay(scene.harness.yard.app, settings, kwargs)
    eventually(lambda: not is_armed(scene.seams, seam), seam, why=lambda: scene.worker.log[-4000:])
    assert scene.worker.wait() == -9
    scene.worker.launch()
    job = scene.harness.yard.job(job_id)
    ended = eventually(lambda: job.state() in (State.COMPLETED, State.DEAD_LETTERED), "its end")
    assert ended
    answer: Any = job.result(5)
    assert answer["letter_id"] == letter.letter_id
    request_id = uuid.UUID(answer["request_id"])
    eventually(lambda: len(rows(scene.database, request_id)) == 2, "the relay's answer")
    assert [row["outcome"] for row in rows(scene.database, request_id)] == ["requested", "applied"]
    with scene.database.connect() as connection:
        intents = select(func.count()).where(OUTBOX.c.job_id == letter.job_id)
        asked = select(func.count()).where(
            AUDIT.c.target_request_id == letter.job_id, AUDIT.c.outcome == "requested"
        )
        assert (connection.scalar(intents), connection.scalar(asked)) == (1, 1)


def test_a_denial_is_counted_once_though_its_worker_is_killed_between_count_and_decision(
    scene: Scene,
) -> None:
    with scene.database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    settings = scene.harness.settings
    for seam in ("after count", "before finish"):
        arm(scene.seams, seam)
        job_id = send_replay(scene.harness.yard.app, settings, {"letter_id": "x", "reason": WHY})
        assert scene.worker.wait() == -9
        assert not is_armed(scene.seams, seam)
        scene.worker.launch()
        job = scene.harness.yard.job(job_id)
        scene.harness.await_state(job, State.DEAD_LETTERED)
    [row] = list_unverified(scene.database, None, 10)
    assert (row["why"], row["count"]) == ("unsigned", 2)


def rows(database: Engine, request_id: uuid.UUID) -> list[dict[str, Any]]:
    with database.connect() as connection:
        return rows_of(connection, request_id)
