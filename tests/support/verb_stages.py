"""Jobs in any situation, at a native worker and at one of an installed app, on both brokers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.mirror import mirroring
from support.operated import OPS, Scene, working
from support.rabbitmq import count_messages
from support.relay import relaying
from support.waiting import eventually
from support.yard import STEPS, list_key
from taskyard.control import Control
from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.store import connect

__all__ = ["FILLERS", "App", "Job", "Native", "Stage", "staged"]

# What fills the worker's processes and its prefetch, so that what follows waits in the queue.
FILLERS: Final = 24


@dataclass
class Job:
    """A job in its situation; `release` lets what holds it go."""

    job_id: str
    release: Callable[[], None] = field(default=lambda: None)


class Native:
    """Jobs of Taskyard's own workers."""

    other = "plan"

    def __init__(self, scene: Scene) -> None:
        self.scene, self.harness = scene, scene.harness
        self.control = Control(scene.database, scene.harness.yard.records, OPS)
        self.database = scene.database

    def runs(self, job_id: str) -> int:
        return self.harness.runs(job_id)

    def state(self, job_id: str) -> State:
        return self.harness.yard.job(job_id).state()

    def fields(self, job_id: str) -> dict[str, str]:
        return dict(self.harness.yard.records.read(job_id).fields)

    def logs(self) -> str:
        return self.scene.worker.log[-6000:]

    def waiting(self, queue: str) -> int:
        """Messages in a queue that no worker has taken."""
        settings = self.scene.settings
        if settings.need_broker_url().startswith("amqp"):
            return count_messages(settings, [settings.broker_name(queue)])
        key = list_key(settings, queue)
        return sum(self.harness.broker.llen(key + step) for step in STEPS)

    def fill(self, count: int) -> Callable[[], None]:
        gate = uuid.uuid4().hex
        jobs = [self.harness.act(gate=gate, job_type="exec_act") for _ in range(count)]
        eventually(
            lambda: sum(map(self.harness.runs, jobs)) >= min(count, 2), "busy", why=self.logs
        )

        def release() -> None:
            self.harness.open_gate(gate)
            for job in jobs:
                self.harness.await_state(job, State.COMPLETED)

        return release

    def simple(self, **options: Any) -> str:
        return self.harness.act(**options).job_id

    def make(self, situation: str) -> Job:  # noqa: PLR0911 - one for each situation
        match situation:
            case "delayed":
                return Job(self.simple(countdown=3))
            case "no worker":
                return Job(self.simple(job_type="locator_act"))
            case "running":
                gate = uuid.uuid4().hex
                job = self.scene.running(gate=gate)
                return Job(job.job_id, lambda: self.harness.open_gate(gate))
            case "hung":
                return Job(self.scene.running("hang in C", times=1).job_id)
            case "retrying":
                payload = {"do": "fail", "times": 1, "retry_after_s": 6}
                job = self.harness.yard.enqueue("plan_act", payload, queue="exec")
                self.harness.await_state(job, State.RETRYING)
                return Job(job.job_id)
            case "dead-lettered":
                job = self.harness.act("fail", "locator_act", queue="exec", code="hopeless")
                self.harness.await_state(job, State.DEAD_LETTERED)
                return Job(job.job_id)
            case "completed":
                job = self.harness.act()
                self.harness.await_state(job, State.COMPLETED)
                return Job(job.job_id)
            case "no record":
                return self._without_a_record()
        raise AssertionError(situation)

    def _without_a_record(self) -> Job:
        release = self.fill(FILLERS)
        app, job_id = self.harness.yard.app, str(uuid.uuid4())
        queue = self.scene.settings.broker_name("exec")
        with app.connection_for_write() as connection:
            payload = {"do": "return"}
            app.send_task(
                "exec_act", args=[payload], task_id=job_id, queue=queue, connection=connection
            )
        return Job(job_id, release)


class App:
    """Tasks of an installed app."""

    def __init__(self, app: Legacy, tasks: Any, database: Engine) -> None:
        self.app, self.tasks, self.database = app, tasks, database
        self.client = connect(app.settings.need_redis_url())
        self.records = Records(self.client, app.settings)
        self.control = Control(database, self.records, OPS)
        self.other, self.unread = f"{app.prefix}.orders", f"{app.prefix}.unread"

    def runs(self, job_id: str) -> int:
        return len(self.app.notes(f"{job_id}:runs"))

    def state(self, job_id: str) -> State:
        return self.records.read(job_id).state

    def fields(self, job_id: str) -> dict[str, str]:
        return self.app.record(job_id)

    def logs(self) -> str:
        return self.app.logs()

    def waiting(self, queue: str) -> int:
        return self.app.at_broker.queued(queue if "." in queue else self.unread)

    def fill(self, count: int) -> Callable[[], None]:
        gate = uuid.uuid4().hex
        results = [self.tasks.gated.delay(gate) for _ in range(count)]
        eventually(
            lambda: sum(self.runs(each.id) for each in results) >= min(count, 2),
            "busy",
            why=self.logs,
        )

        def release() -> None:
            self.app.open_gate(gate, count)
            for each in results:
                self.app.await_state(each.id, "completed")

        return release

    def simple(self, **options: Any) -> str:
        return str(self.tasks.once.apply_async(**options).id)

    def make(self, situation: str) -> Job:  # noqa: PLR0911 - one for each situation
        match situation:
            case "delayed":
                return Job(self.simple(countdown=3))
            case "no worker":
                return Job(self.simple(queue=self.unread))
            case "running":
                gate = uuid.uuid4().hex
                job_id = self._begun(self.tasks.gated.delay(gate).id)
                return Job(job_id, lambda: self.app.open_gate(gate, 2))
            case "hung":
                return Job(self._begun(self.tasks.hang.delay().id))
            case "retrying":
                job_id = self.tasks.much_later.delay().id
                self.app.await_state(job_id, "retrying")
                return Job(job_id)
            case "dead-lettered":
                job_id = self.tasks.doomed.delay().id
                self.app.await_state(job_id, "dead_lettered")
                return Job(job_id)
            case "completed":
                job_id = self.simple()
                self.app.await_state(job_id, "completed")
                return Job(job_id)
            case "no record":
                release = self.fill(FILLERS)
                return Job(self.simple(), release)
        raise AssertionError(situation)

    def _begun(self, job_id: str) -> str:
        self.app.await_state(job_id, "running")
        self.app.await_notes(f"{job_id}:runs", 1)
        return job_id


Stage = Native | App


@contextmanager
def staged(
    place: str, servers: Servers, database: Engine, database_url: str, folder: Path
) -> Iterator[Stage]:
    broker = place.removeprefix("app on ")
    with ExitStack() as stack:
        if place == broker:
            scene = stack.enter_context(working(broker, servers, database, folder))
            stack.enter_context(mirroring(scene.settings, database_url))
            yield Native(scene)
            return
        app = stack.enter_context(legacy_on(broker, servers, folder))
        app.worker("worker", None, "-Q", f"{app.prefix}.work,{app.prefix}.orders")
        stack.enter_context(relaying(app.settings, database))
        stack.enter_context(mirroring(app.settings, database_url))
        stage = App(app, stack.enter_context(app.producer()), database)
        stack.callback(stage.client.close)
        yield stage
