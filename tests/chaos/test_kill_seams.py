"""SIGKILL between decide, publish and acknowledge: each outcome is recorded once, nothing is lost.

The seams are exact places in the code, so every kill happens where its test says. Children are
killed in a worker that lives on; a killed main process is followed by another worker.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from sqlalchemy import Engine

from servers import Servers
from support.ground import signature
from support.legacy_broker import RedisBroker
from support.mirror import mirroring, stored_letters
from support.seams import FOLDER_VARIABLE, UNPROTECTED_VARIABLE, arm, is_armed
from support.waiting import eventually
from support.worker import HANDLERS, Worker, gone
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.ledger import history
from taskyard.wire.letter_envelope import letter_id

# A dead worker's messages return after this; the heartbeat alone would take 10 s.
VISIBILITY_S = 2
COMPLETED = ["admit", "begin", "complete"]
RERUN = ["admit", "begin", "begin", "complete"]
RETRIED = ["admit", "begin", "retry", "begin", "complete"]
DEAD = ["admit", "begin", "fail"]


@dataclass
class Scene:
    """A harness, its worker with seams, and a mirror."""

    harness: ServerHarness
    worker: Worker
    seams: Path
    database: Engine
    settlements: list[str] = field(default_factory=list)

    def arm(self, seam: str) -> None:
        arm(self.seams, seam)

    def await_kill(self, seam: str) -> None:
        why = lambda: self.worker.log[-4000:]  # noqa: E731 - evaluated when it fails
        eventually(lambda: not is_armed(self.seams, seam), f"a kill {seam}", why=why)

    def replace_worker(self) -> None:
        """Wait for the main process's death, then start another worker."""
        assert self.worker.wait() == -9
        self.worker.launch()

    def event_names(self, job: JobHandle) -> list[str]:
        """The job's events in Postgres, whose versions must be complete."""
        with self.database.connect() as connection:
            events = history(connection, job.job_id)
        assert [event["version"] for event in events] == list(range(1, len(events) + 1))
        return [event["event"] for event in events]

    def rows(self, job: JobHandle) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return stored_letters(connection, job.job_id)


@pytest.fixture(scope="module")
def scene(
    servers: Servers, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    settings = fresh_settings(servers.valkey_url(), visibility_timeout_s=VISIBILITY_S, lease_s=2)
    folder = tmp_path_factory.mktemp("seams")
    harness = ServerHarness(settings)
    worker = _worker(harness, folder)
    with worker.launch(), mirroring(settings, database_url) as database:
        yield Scene(harness, worker, folder / "armed", database)
    harness.close()


def _worker(harness: ServerHarness, folder: Path, **variables: str) -> Worker:
    variables[FOLDER_VARIABLE] = str(folder / "armed")
    (folder / "armed").mkdir(exist_ok=True)
    return Worker(
        harness.settings, folder, modules=("support.seams", HANDLERS), environment=variables
    )


def follow(scene: Scene, job: JobHandle, event_names: list[str], runs: int) -> None:
    """The job's whole list of events, its handler's runs, and nothing left anywhere."""
    scene.harness.await_end(job)
    scene.harness.await_quiet()
    eventually(lambda: not scene.harness.events(), "all events in Postgres")
    # Celery notices a dead child within 5 s; the lease may end before, and then no `lose` is told.
    assert [event for event in scene.event_names(job) if event != "lose"] == event_names
    assert scene.harness.runs(job) == runs


# --- a child is killed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seam", "act", "event_names", "runs"),
    [
        ("before begin", {}, COMPLETED, 1),
        ("after begin", {}, RERUN, 1),
        ("before finish", {}, RERUN, 2),
        ("after finish", {}, COMPLETED, 1),
        ("after finish", {"do": "fail", "times": 1}, RETRIED, 2),
        ("after finish", {"do": "fail", "code": "hopeless", "job_type": "locator_act"}, DEAD, 1),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_child_killed_at_a_seam_costs_at_most_one_more_run(
    scene: Scene, seam: str, act: dict[str, Any], event_names: list[str], runs: int
) -> None:
    scene.arm(seam)
    job = scene.harness.act(value=5, **{"do": "return", **act})
    scene.await_kill(seam)
    follow(scene, job, event_names, runs)
    letters = eventually(lambda: scene.rows(job), "its letter") if event_names is DEAD else []
    assert [str(row["id"]) for row in letters] == [
        letter_id(job.job_id, job.record().epoch, 0) for _ in letters
    ]
    assert job.state() is (State.DEAD_LETTERED if event_names is DEAD else State.COMPLETED)


@pytest.mark.parametrize("seam", ["after finish", "before continuation", "after continuation"])
def test_a_child_killed_around_its_continuation_lets_it_run_exactly_once(
    scene: Scene, seam: str
) -> None:
    app, first, second = scene.harness.yard.app, str(uuid.uuid4()), str(uuid.uuid4())
    links = chain(
        app.signature("exec_act", args=[{"value": {"value": 8}}]).set(task_id=first),
        app.signature("exec_act").set(task_id=second),
    )
    # The client's own publication of the first link goes through the same place.
    scene.arm(seam)
    result = links()
    scene.await_kill(seam)
    assert result.get(timeout=30) == 8
    scene.harness.await_quiet()
    assert [scene.harness.runs(link) for link in (first, second)] == [1, 1]
    follow(scene, scene.harness.yard.job(second), ["begin", "complete"], 1)


# --- the main process is killed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("seam", "act", "event_names", "runs"),
    [
        ("before retry", {"do": "fail", "times": 1}, RETRIED, 2),
        ("after retry", {"do": "fail", "times": 1}, RETRIED, 2),
        ("before delayed retry", {"do": "fail", "times": 1, "job_type": "plan_act"}, RETRIED, 2),
        ("after delayed retry", {"do": "fail", "times": 1, "job_type": "plan_act"}, RETRIED, 2),
        ("before acknowledge", {}, COMPLETED, 1),
        ("after acknowledge", {}, COMPLETED, 1),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_main_process_killed_at_a_seam_repeats_the_publication_and_not_the_work(
    scene: Scene, seam: str, act: dict[str, Any], event_names: list[str], runs: int
) -> None:
    scene.arm(seam)
    job = scene.harness.act(value=6, **{"do": "return", **act})
    scene.replace_worker()
    follow(scene, job, event_names, runs)
    assert job.result(0) == 6


@pytest.mark.parametrize("seam", ["before letter", "after letter"])
@pytest.mark.parametrize(
    ("act", "event_names", "runs"),
    [
        ({"do": "fail", "code": "hopeless", "job_type": "locator_act"}, DEAD, 1),
        ({"do": "kill"}, ["admit", "begin", "begin", "begin", "fail"], 3),
        ({"do": "hang", "job_type": "hard_act"}, DEAD, 1),
        ({"countdown": 0.3, "expires": 0.1}, ["admit", "fail"], 0),
    ],
    ids=["failure", "poison", "hard limit", "expired"],
)
def test_a_main_process_killed_around_a_letter_leaves_exactly_one_row(
    scene: Scene, seam: str, act: dict[str, Any], event_names: list[str], runs: int
) -> None:
    scene.arm(seam)
    job = scene.harness.act(**{"do": "return", **act})
    scene.replace_worker()
    scene.harness.await_end(job)
    if act.get("do") == "hang":
        # It runs about as long as a lease. One that a busy machine did not renew is over, and the
        # job rightly begins again; the record's history tells that from a run that should not be.
        expired = sum(note.code == "lease_expired" for note in job.record().history)
        event_names, runs = (
            [*event_names[:-1], *["begin"] * expired, event_names[-1]],
            runs + expired,
        )
    follow(scene, job, event_names, runs)
    (row,) = eventually(lambda: scene.rows(job), "its letter")
    assert str(row["id"]) == letter_id(job.job_id, job.record().epoch, 0)


def test_a_main_process_killed_before_it_counts_a_death_counts_it_later(scene: Scene) -> None:
    scene.arm("before lose")
    job = scene.harness.act("kill", times=1, value=4)
    scene.replace_worker()
    follow(scene, job, RERUN, 2)
    # Nobody could say that the attempt was lost; the end of its lease did.
    assert "lose" not in scene.event_names(job)


@pytest.mark.parametrize(
    "seam",
    [
        f"{when} {name}"
        for name in ("condemn", "letter", "acknowledge")
        for when in ("before", "after")
    ],
)
def test_a_kill_around_the_letter_of_a_continuation_leaves_exactly_one_row(
    scene: Scene, seam: str
) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    broken = {**signature("exec_act"), "subtask_type": "nothing of Celery's"}
    broken["options"] = {"task_id": second}
    body = json.dumps([[{"value": 1}], {}, {"callbacks": [broken]}]).encode()
    settings = scene.harness.settings
    scene.arm(seam)
    RedisBroker(settings).push(list_key(settings, "exec"), {"id": first, "task": "exec_act"}, body)
    # The main process acknowledges; what comes before that is its child's.
    if seam.endswith("acknowledge"):
        scene.replace_worker()
    else:
        scene.await_kill(seam)
    follow(scene, scene.harness.yard.job(first), ["begin", "complete"], 1)
    (row,) = eventually(lambda: scene.rows(scene.harness.yard.job(second)), "its letter")
    assert (row["failure_code"], row["status"]) == ("continuation_invalid", "pending")
    assert scene.event_names(scene.harness.yard.job(second)) == ["fail"]


# --- without the protection -------------------------------------------------------------------


def test_acknowledging_before_publishing_would_lose_the_letter(
    servers: Servers, tmp_path: Path
) -> None:
    settings = fresh_settings(servers.valkey_url(), visibility_timeout_s=VISIBILITY_S)
    harness = ServerHarness(settings)
    worker = _worker(harness, tmp_path, **{UNPROTECTED_VARIABLE: "acknowledge first"})
    arm(tmp_path / "armed", "before letter")
    with worker.launch():
        job = harness.act("fail", "locator_act", code="hopeless")
        assert worker.wait() == -9
    assert job.state() is State.DEAD_LETTERED
    assert harness.leftovers() == {}
    assert harness.letters() == []
    harness.close()


# --- children ----------------------------------------------------------------------------------


def test_children_die_with_their_main_process_and_their_job_runs_elsewhere(scene: Scene) -> None:
    job = scene.harness.act(gate="orphan", value=3)
    eventually(lambda: scene.harness.runs(job) == 1, "the handler's start")
    children = scene.worker.children()
    assert children
    scene.worker.kill()
    eventually(lambda: all(gone(pid) for pid in children), "the children's end")
    scene.replace_worker()
    eventually(lambda: scene.harness.runs(job) == 2, "the second run")
    scene.harness.open_gate("orphan")
    follow(scene, job, RERUN, 2)
