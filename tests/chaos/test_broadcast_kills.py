"""Signed broadcasts whose worker is killed, and floods of unsigned ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.broadcast_seams import STEP
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.signing import Keeper
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.engine.count_denied_broadcasts import AT_ONCE
from taskyard.records.verb_events import VerbEvent
from taskyard.wire.credential_argument import CREDENTIAL

pytestmark = pytest.mark.slow
FLOOD = 10_000


class Scene:
    """Workers of one fleet, which can be started again under their names."""

    def __init__(self, broker: str, servers: Servers, folder: Path) -> None:
        url = servers.valkey_url()
        self.keeper = Keeper(folder / "keys")
        self.settings = fresh_settings(
            url,
            broker_url=url if broker == "redis" else servers.rabbitmq_url(),
            public_keys=self.keeper.ring,
        )
        self.harness, self.folder = ServerHarness(self.settings), folder
        self.seams = folder / "armed"
        self.seams.mkdir()

    def worker(self, name: str) -> Worker:
        return Worker(
            self.settings,
            self.folder / name,
            queues=("exec",),
            modules=("support.seams", "support.broadcast_seams", HANDLERS),
            options=("--pool", "solo"),
            environment={FOLDER_VARIABLE: str(self.seams)},
            name=name,
        )

    def signed(self) -> str:
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call_of_broadcast(self.settings.namespace, WHOAMI),
            now=datetime.now(UTC),
            life=timedelta(minutes=10),
        )

    def broadcast(self, credential: str, *, reply: bool) -> Any:
        app = self.harness.yard.app
        with app.connection_for_write() as connection:
            return app.control.broadcast(
                WHOAMI,
                arguments={CREDENTIAL: credential},
                reply=reply,
                limit=1,
                timeout=20 if reply else None,
                connection=connection,
            )

    def verbs(self) -> list[VerbEvent]:
        entries = self.harness.redis.xrange(f"{self.settings.namespace}:lifecycle")
        return [VerbEvent.parse(fields) for _, fields in entries if b"verb" in fields]


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(request.param, servers, tmp_path)
    yield made
    made.harness.close()


@pytest.mark.parametrize("seam", [f"before {STEP}", f"after {STEP}"])
def test_a_broadcast_whose_worker_is_killed_is_carried_out_once_with_all_its_copies(
    scene: Scene, seam: str
) -> None:
    credential = scene.signed()
    arm(scene.seams, seam)
    with scene.worker("first").start() as worker:
        scene.broadcast(credential, reply=False)
        assert worker.wait() == -9
        assert not is_armed(scene.seams, seam)
        for start in (2, 3):
            worker.launch()
            eventually(
                lambda start=start: worker.log.count(" ready.") == start,
                f"start {start}",
                why=lambda: worker.log[-3000:],
            )
            [reply] = scene.broadcast(credential, reply=True)
            [answer] = reply.values()
            assert answer["subject"] == scene.keeper.subject
            [event] = scene.verbs()
            assert (event.worker, event.code) == (answer["worker"], "")
            worker.kill()
            worker.wait()


def test_a_flood_of_unsigned_broadcasts_fills_neither_redis_nor_logs(scene: Scene) -> None:
    workers = [scene.worker(name) for name in ("one", "two", "three")]
    app, redis = scene.harness.yard.app, scene.harness.redis
    with ExitStack() as running:
        for worker in workers:
            running.enter_context(worker.start())
        before = redis.info("memory")["used_memory"]
        began = datetime.now(UTC)
        with app.connection_for_write() as connection:
            for _ in range(FLOOD):
                app.control.broadcast(
                    WHOAMI, arguments={CREDENTIAL: "x" * 300}, connection=connection
                )
        eventually(
            lambda: sum(event.count for event in scene.verbs()) == FLOOD,
            "all counted",
            why=lambda: str([event.count for event in scene.verbs()]),
        )
        beats = 2 + (datetime.now(UTC) - began).total_seconds() / 5
        assert len(scene.verbs()) <= len(workers) * beats * (AT_ONCE + 1)
        assert redis.info("memory")["used_memory"] - before < 2_000_000
        for worker in workers:
            lines = [line for line in worker.log.splitlines() if "denied" in line]
            assert len(lines) <= beats * (AT_ONCE + 1)
