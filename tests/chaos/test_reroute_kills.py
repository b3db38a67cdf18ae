"""SIGKILL between forwarding, confirming and acknowledging: a rerouted job runs in its new queue.

The seams are exact places in the code, on both brokers, in our own workers and in those of an
installed app.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.records import Records, VerbApplied, VerbTarget
from taskyard.store import connect

BROKERS = ("redis", "rabbitmq")
PUBLISH = {"redis": "retry", "rabbitmq": "retry at RabbitMQ"}
STEPS = [
    f"{when} {step}"
    for step in ("publish", "requeued", "acknowledge")
    for when in ("before", "after")
]
WAITED = ["admit", "reroute", "requeue", "begin", "complete"]
RAN = ["admit", "begin", "reroute", "requeue", "begin", "complete"]


@dataclass
class Scene:
    """A worker of exec and plan that dies at seams."""

    broker: str
    harness: ServerHarness
    worker: Worker
    seams: Path

    def arm(self, step: str) -> None:
        arm(self.seams, step.replace("publish", PUBLISH[self.broker]))

    def reroute(self, job: JobHandle) -> None:
        answer = self.harness.yard.records.verbs.reroute(
            VerbTarget(job.job_id), f"r-{job.job_id}", "ops", "plan"
        )
        assert isinstance(answer, VerbApplied), answer

    def running(self, gate: str) -> JobHandle:
        job = self.harness.act(gate=gate, value=3)
        eventually(lambda: self.harness.runs(job) == 1, "its handler", why=lambda: self.worker.log)
        return job

    def follow(self, job: JobHandle, events: list[str], runs: int) -> None:
        """The job ends in its new queue with all its events, and its handler ran so often."""
        self.harness.await_end(job)
        assert job.state() is State.COMPLETED, self.worker.log[-4000:]
        assert job.record().queue == "plan"
        assert [name for name in self.harness.event_names(job) if name != "lose"] == events
        assert self.harness.runs(job) == runs

    def replace_worker(self) -> None:
        assert self.worker.wait() == -9
        self.worker.launch()


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=BROKERS)
def scene(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    broker = servers.rabbitmq_url() if request.param == "rabbitmq" else servers.valkey_url()
    settings = fresh_settings(
        servers.valkey_url(), broker_url=broker, visibility_timeout_s=2, lease_s=2
    )
    folder = tmp_path_factory.mktemp("reroute")
    seams = folder / "armed"
    seams.mkdir()
    worker = Worker(
        settings,
        folder,
        queues=("exec", "plan"),
        modules=("support.seams", HANDLERS),
        environment={FOLDER_VARIABLE: str(seams)},
    )
    harness = ServerHarness(settings)
    with worker.start():
        yield Scene(request.param, harness, worker, seams)
    harness.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_while_it_forwards_a_message_repeats_the_step_and_the_job_runs_once(
    scene: Scene, step: str
) -> None:
    job = scene.harness.act(countdown=1, value=3)
    scene.reroute(job)
    scene.arm(step)
    scene.replace_worker()
    scene.follow(job, WAITED, 1)
    assert job.result(SOON_S) == 3


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_while_it_forwards_for_its_attempt_runs_the_job_once_more(
    scene: Scene, step: str
) -> None:
    gate = step.replace(" ", "-")
    job = scene.running(gate)
    scene.reroute(job)
    scene.arm(step)
    scene.harness.open_gate(gate)
    scene.replace_worker()
    scene.follow(job, RAN, 2)


@pytest.mark.parametrize("step", ["before finish", "after finish"])
def test_a_child_killed_around_the_end_of_a_rerouted_attempt_forwards_the_message(
    scene: Scene, step: str
) -> None:
    gate = step.replace(" ", "-")
    job = scene.running(gate)
    scene.reroute(job)
    scene.arm(step)
    scene.harness.open_gate(gate)
    eventually(lambda: not is_armed(scene.seams, step), f"a kill {step}")
    scene.follow(job, RAN, 2)


@dataclass
class Cut(Legacy):
    """The legacy app, whose workers die at seams."""

    def environment(self, mode: str | None = None, transport: bool | None = None) -> dict[str, str]:
        return {**super().environment(mode, transport), FOLDER_VARIABLE: str(self.folder / "armed")}


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("step", ["before publish", "before requeued", "before acknowledge"])
def test_a_worker_of_an_app_killed_while_it_forwards_runs_the_task_once(
    servers: Servers, tmp_path: Path, broker: str, step: str
) -> None:
    seams = tmp_path / "armed"
    seams.mkdir()
    with legacy_on(broker, servers, tmp_path, kind=Cut, lease_s=3) as app, app.producer() as tasks:
        worker = app.worker("first", None, "-I", "support.seams")
        task = tasks.once.apply_async(countdown=1)
        _reroute(app, task.id)
        arm(seams, step.replace("publish", PUBLISH[broker]))
        eventually(lambda: worker.ended, f"a kill {step}", why=app.logs)
        app.worker("second")
        task.get(timeout=SOON_S)
        assert app.record(task.id)["queue"] == f"{app.prefix}.orders"
        assert len(app.notes(f"{task.id}:runs")) == 1


def _reroute(app: Legacy, job_id: str) -> None:
    client = connect(app.settings.need_redis_url())
    target = VerbTarget(job_id, job_type="legacy.once", queue=f"{app.prefix}.work")
    verbs: Any = Records(client, app.settings).verbs
    answer = verbs.reroute(target, f"r-{job_id}", "ops", f"{app.prefix}.orders")
    assert isinstance(answer, VerbApplied), answer
    client.close()
