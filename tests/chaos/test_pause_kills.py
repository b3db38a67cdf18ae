"""SIGKILL at the seams of a pause: no job is lost, runs twice or counts anything because of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers import Servers
from support.held_switches import HeldSwitches
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.ops.embedded.waiting import until
from taskyard.switches import Mode

pytestmark = pytest.mark.slow

PAUSE, TYPE = "pause queue:exec", "kill type:exec_act"
# A dead worker's messages return after this; the heartbeat alone would take 10 s.
VISIBILITY_S = 2
JOBS, TRIES = 3, 10


@dataclass
class Scene:
    """A harness, its worker with seams, and the switches."""

    harness: ServerHarness
    worker: Worker
    seams: Path
    switches: HeldSwitches

    def await_kill(self, seam: str) -> None:
        eventually(
            lambda: not is_armed(self.seams, seam),
            f"a kill {seam}",
            why=lambda: self.worker.log[-6000:],
        )

    def pause_until_kill(self, seam: str) -> list[JobHandle]:
        """Pause the queue and enqueue, until the worker takes a job before it reads the pause."""
        jobs: list[JobHandle] = []
        for _ in range(TRIES):
            self.switches.hold(PAUSE)
            arm(self.seams, seam)
            jobs.append(self.harness.act())
            if until(lambda: not is_armed(self.seams, seam), within_s=3):
                return jobs
            (self.seams / seam).unlink(missing_ok=True)
            self.switches.off(PAUSE)
            assert self.harness.await_end(jobs[-1]) is State.COMPLETED
        raise AssertionError(f"no kill {seam}:\n{self.worker.log[-6000:]}")

    def replace_worker(self) -> None:
        """Wait for the main process's death, then start another worker."""
        assert self.worker.wait() == -9
        self.worker.launch()

    def follow(self, jobs: list[JobHandle]) -> None:
        """Each job ran once, and nothing was counted."""
        for job in jobs:
            assert self.harness.await_end(job) is State.COMPLETED, self.worker.log[-6000:]
        assert [self.harness.runs(job) for job in jobs] == [1] * len(jobs)
        for job in jobs:
            assert self.harness.event_names(job) == ["admit", "begin", "complete"]


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Scene]:
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(
        url, broker_url=broker, visibility_timeout_s=VISIBILITY_S, delivery_limit=2
    )
    harness, armed = ServerHarness(settings), tmp_path / "armed"
    armed.mkdir()
    worker = Worker(
        settings,
        tmp_path,
        modules=("support.seams", HANDLERS),
        environment={FOLDER_VARIABLE: str(armed)},
        queues=("exec", "locator"),
        concurrency=1,
    )
    with worker.launch():
        switches = HeldSwitches(harness.redis, settings.namespace)
        yield Scene(harness, worker, armed, switches)
    harness.close()


@pytest.mark.parametrize(
    "seam",
    [
        "before return held",
        "after return held",
        "before give back held",
        "after give back held",
    ],
)
def test_a_worker_that_dies_over_a_held_message_leaves_it_to_the_next(
    scene: Scene, seam: str
) -> None:
    assert scene.harness.await_end(scene.harness.act(job_type="locator_act")) is State.COMPLETED
    jobs = scene.pause_until_kill(seam)
    scene.replace_worker()
    assert scene.harness.await_end(scene.harness.act(job_type="locator_act")) is State.COMPLETED
    assert scene.harness.runs(jobs[-1]) == 0
    scene.switches.off(PAUSE)
    scene.follow(jobs)


def test_a_process_that_dies_of_a_held_job_counts_no_death(scene: Scene) -> None:
    assert scene.harness.await_end(scene.harness.act(job_type="locator_act")) is State.COMPLETED
    jobs = scene.pause_until_kill("after begin")
    assert scene.harness.await_end(scene.harness.act(job_type="locator_act")) is State.COMPLETED
    assert int(jobs[-1].record().number("deaths")) == 0
    scene.switches.off(PAUSE)
    scene.follow(jobs)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_before_or_after_it_parks_a_message_loses_none(
    scene: Scene, when: str
) -> None:
    redis = scene.harness.settings.need_broker_url().startswith("redis")
    seam = f"{when} {'park' if redis else 'park at RabbitMQ'}"
    jobs = [scene.harness.act(gate="open"), *(scene.harness.act() for _ in range(JOBS))]
    eventually(lambda: scene.harness.runs(jobs[0]) == 1, "the first job runs")
    arm(scene.seams, seam)
    scene.switches.turn(TYPE, Mode.HOLD, for_s=8)
    scene.harness.open_gate("open")
    scene.await_kill(seam)
    scene.replace_worker()
    scene.follow(jobs)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_while_it_releases_messages_leaves_the_rest_to_the_next(
    scene: Scene, when: str
) -> None:
    if not scene.harness.settings.need_broker_url().startswith("redis"):
        pytest.skip("RabbitMQ releases by itself")
    jobs = [scene.harness.act(gate="open"), *(scene.harness.act() for _ in range(JOBS))]
    eventually(lambda: scene.harness.runs(jobs[0]) == 1, "the first job runs")
    scene.switches.hold(TYPE)
    scene.harness.open_gate("open")
    eventually(lambda: scene.harness.delayed() == JOBS, "all are parked")
    arm(scene.seams, f"{when} release parked")
    scene.switches.off(TYPE)
    scene.await_kill(f"{when} release parked")
    scene.replace_worker()
    scene.follow(jobs)
    assert not scene.harness.broker.exists(f"{scene.harness.settings.namespace}:delayed:parked")
