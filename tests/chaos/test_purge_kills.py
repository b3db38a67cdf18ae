"""A purge that dies between any two lines loses no job: repeated, it ends each of them once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.purging import BROKERS, WHY, Crash, PurgeScene, purging
from support.shell import PROGRAM, connected_shell
from support.waiting import eventually
from support.worker import Worker
from taskyard import audit, outbox
from taskyard.broker import RabbitQueueMessages, RedisQueueMessages
from taskyard.control import purge_batch
from taskyard.jobs.states import State
from taskyard.records import OperatorVerbs, Records

pytestmark = pytest.mark.slow

JOBS = 5
SILENT = (
    "refused: the purge ended before it said what it did; {} jobs were cancelled (see its jobs' "
    "rows); run it again"
)

# Where the process dies: the owner of the function, its name, and at which of its calls.
SEAMS: dict[str, tuple[Any, str, int]] = {
    "look": (Records, "read_many", 1),
    "request": (audit, "write_many", 1),
    "own": (outbox, "put_many", 1),
    "intents": (outbox, "put_many", 2),
    "ahead": (outbox, "keep_ahead", 1),
    "cancel": (OperatorVerbs, "many", 1),
    "answer": (audit, "write_many", 2),
    "finish": (outbox, "finish_many", 1),
    "batch": (purge_batch, "cancel_batch", 1),
    "keep": (None, "keep", 1),
    "remove": (None, "remove", 1),
    "gone": (Records, "note_gone_many", 1),
    "count": (None, "count", 2),
    "own_end": (outbox, "finish_own", 1),
    "end": (audit, "answer", 1),
}


@pytest.fixture(params=BROKERS)
def scene(
    request: pytest.FixtureRequest, servers: Servers, empty_database: Engine
) -> Iterator[PurgeScene]:
    with purging(request.param, servers, empty_database) as made:
        yield made


def die(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, *, after: bool
) -> list[int]:
    """Raise `Crash` at a function's call of that number, before or after its work."""
    original: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def cut(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == at and not after:
            raise Crash
        answer = original(*arguments, **keywords)
        if len(calls) == at:
            raise Crash
        return answer

    monkeypatch.setattr(owner, name, cut)
    return calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seam", SEAMS)
def test_a_purge_that_dies_and_is_repeated_ends_each_job_once(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch, seam: str, after: bool
) -> None:
    jobs = scene.enqueue(JOBS)
    owner, name, at = SEAMS[seam]
    if owner is None:
        owner = RabbitQueueMessages if scene.rabbit else RedisQueueMessages
    elif owner is purge_batch:
        from taskyard.control import purge_run as owner  # noqa: PLC0415 - where it is called
    with monkeypatch.context() as patch:
        calls = die(patch, owner, name, at, after=after)
        with pytest.raises(Crash):
            scene.purge()
    assert len(calls) == at
    eventually(lambda: settled(scene, jobs), "every job has a message or is cancelled")
    outcome = scene.purge()
    assert (outcome.remaining, scene.depth()) == (0, 0)
    assert [job.state() for job in jobs] == [State.CANCELLED] * JOBS
    scene.relay_all()
    assert scene.open_intents() == 0
    for job in jobs:
        scene.check_cancelled(job)
    check_answered(scene)


def check_answered(scene: PurgeScene) -> None:
    """Every purge that was requested has one answer."""
    for request in scene.purges():
        outcomes = [row["outcome"] for row in scene.rows(request)]
        assert len(outcomes) == 2, outcomes
        assert outcomes[0] == "requested"


def settled(scene: PurgeScene, jobs: list[Any]) -> bool:
    """No job is lost: whoever is not cancelled has its message in the queue."""
    live = sum(job.state() is State.ACCEPTED for job in jobs)
    return scene.depth() >= live


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seam", ["intents", "cancel", "answer"])
def test_what_a_dead_purge_has_requested_the_relay_carries_out(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch, seam: str, after: bool
) -> None:
    jobs = scene.enqueue(JOBS)
    with monkeypatch.context() as patch:
        die(patch, *SEAMS[seam], after=after)
        with pytest.raises(Crash):
            scene.purge()
    scene.relay_all()
    requested = seam != "intents"
    expected = State.CANCELLED if requested else State.ACCEPTED
    assert [job.state() for job in jobs] == [expected] * JOBS
    if requested:
        for job in jobs:
            scene.check_cancelled(job)
    check_answered(scene)
    (purge,) = scene.purges()
    assert scene.rows(purge)[-1]["outcome"] == SILENT.format(JOBS if requested else 0)
    eventually(lambda: scene.depth() == JOBS, "no message has left the queue")


@pytest.mark.parametrize("broker", BROKERS)
def test_a_killed_command_is_repeated_and_a_worker_skips_what_it_left(
    broker: str, servers: Servers, empty_database: Engine, database_url: str, tmp_path: Path
) -> None:
    with purging(broker, servers, empty_database) as scene:
        jobs = scene.enqueue_many(3000)
        shell = connected_shell(
            tmp_path,
            servers,
            database_url,
            TASKYARD_TRUST_LOCAL="1",
            TASKYARD_NAMESPACE=scene.settings.namespace,
            TASKYARD_BROKER_URL=scene.settings.need_broker_url(),
        )
        words = ("queues", "purge", "exec", "--reason", WHY, "--confirm", "3000")
        process = subprocess.Popen(
            [*PROGRAM, *words], env=shell.environ(), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        eventually(
            lambda: 0 < scene.depth() < 2600, "some are purged", why=lambda: str(scene.depth())
        )
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        eventually(lambda: settled(scene, jobs), "no job is lost")
        worker = Worker(scene.settings, tmp_path, queues=("exec",))
        left = [job for job in jobs if job.state() is State.ACCEPTED]
        assert left
        with worker.start():
            for job in left:
                scene.harness.await_state(job, State.COMPLETED)
            eventually(lambda: scene.depth() == 0, "the worker has skipped the rest")
        ended = {job.state() for job in jobs}
        assert ended == {State.COMPLETED, State.CANCELLED}
        ran = [job for job in jobs if scene.harness.runs(job)]
        assert {job.job_id for job in ran} == {job.job_id for job in left}
