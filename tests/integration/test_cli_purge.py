"""`taskyard queues purge` in a shell and in a script: what it asks, prints and refuses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.purging import BROKERS, WHY, PurgeScene, purging
from support.shell import Ran, Shell, connected_shell
from support.waiting import eventually
from support.worker import Worker
from taskyard.jobs.states import State

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


class Desk:
    """A queue, and a shell of an operator who is trusted on this machine."""

    def __init__(self, scene: PurgeScene, shell: Shell) -> None:
        self.scene, self.shell = scene, shell

    def run(self, *words: str, **variables: str) -> Ran:
        return self.shell.run("queues", *words, **variables)

    def purge(self, *words: str, **variables: str) -> Ran:
        return self.run("purge", "exec", *words, **variables)


@pytest.fixture(params=BROKERS)
def desk(
    request: pytest.FixtureRequest,
    servers: Servers,
    empty_database: Engine,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Desk]:
    with purging(request.param, servers, empty_database) as scene:
        shell = connected_shell(
            tmp_path,
            servers,
            database_url,
            TASKYARD_TRUST_LOCAL="1",
            TASKYARD_NAMESPACE=scene.settings.namespace,
            TASKYARD_BROKER_URL=scene.settings.need_broker_url(),
        )
        yield Desk(scene, shell)


def test_a_dry_run_counts_and_changes_nothing(desk: Desk) -> None:
    jobs = desk.scene.enqueue(3)
    ran = desk.purge("--dry-run", "--json")
    assert ran.code == 0, ran.err
    delayed = None if desk.scene.rabbit else 0
    assert ran.document == {"queue": "exec", "waiting": 3, "delayed": delayed}
    assert "3 messages in queue exec" in desk.purge("--dry-run").out
    assert {job.state() for job in jobs} == {State.ACCEPTED}


def test_the_number_must_be_confirmed_and_may_not_have_grown(desk: Desk) -> None:
    jobs = desk.scene.enqueue(3)
    asked = desk.purge("--reason", WHY)
    assert (asked.code, "--confirm 3" in asked.err) == (2, True), asked.err
    grown = desk.purge("--reason", WHY, "--confirm", "2")
    assert grown.code == 5
    assert "3 messages wait in queue 'exec', and 2 were confirmed" in grown.err
    assert {job.state() for job in jobs} == {State.ACCEPTED}


def test_a_purge_says_what_it_did_in_text_and_json(desk: Desk) -> None:
    desk.scene.enqueue(3)
    desk.scene.send({})
    ran = desk.purge("--reason", WHY, "--confirm", "4")
    assert ran.code == 0, ran.err
    first, second, last = ran.out.splitlines()
    assert first == "3 jobs cancelled, 4 messages removed from queue exec; 0 are there now"
    assert second == "1 of the removed were of no job"
    request = last.removeprefix("See: taskyard audit show ")
    shown = desk.shell.run("audit", "show", request, "--json")
    assert [row["outcome"] for row in shown.document] == ["requested", "applied"]
    (job,) = desk.scene.enqueue(1)
    document = desk.purge("--reason", WHY, "--confirm", "1", "--json").document
    assert uuid.UUID(document.pop("request_id"))
    assert document["dropped"] == {"ended": 0, "stale": 0, "no_job": 0}
    assert (document["queue"], document["waiting"], document["remaining"]) == ("exec", 1, 0)
    assert (document["cancelled"], document["removed"], document["taken"]) == (1, 1, 0)
    desk.scene.check_cancelled(job)


def test_refusals_have_their_exit_codes_and_name_the_remedy(desk: Desk) -> None:
    (job,) = desk.scene.enqueue(1)
    words = ("--reason", WHY, "--confirm", "1")
    unidentified = desk.purge(*words, TASKYARD_TRUST_LOCAL="")
    assert unidentified.code == 6
    unknown = desk.run("purge", "exce", *words)
    assert (unknown.code, "there is no queue 'exce'" in unknown.err) == (4, True), unknown.err
    silent = desk.purge("--reason", "testing", "--confirm", "1")
    assert (silent.code, "too short or too general" in silent.err) == (2, True), silent.err
    away = desk.purge(*words, TASKYARD_DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert away.code == 3
    gone = "amqp://127.0.0.1:1//" if desk.scene.rabbit else "redis://127.0.0.1:1/0"
    lost = desk.purge(*words, TASKYARD_BROKER_URL=gone)
    assert (lost.code, "127.0.0.1:1" in lost.err) == (3, True), lost.err
    no_app = desk.purge(*words, "--app", "no_such_module:app")
    assert no_app.code == 2
    assert (job.state(), desk.scene.depth()) == (State.ACCEPTED, 1)


def test_pause_purge_resume_beside_a_worker(desk: Desk, tmp_path: Path) -> None:
    """What has begun runs on; what waits is cancelled; then the queue is served again."""
    scene = desk.scene
    worker = Worker(scene.settings, tmp_path, queues=("exec",))
    with worker.start():
        running = scene.enqueue(2, gate="open")
        eventually(lambda: all(scene.harness.runs(job) for job in running), "both run")
        paused = desk.run("pause", "exec", "--reason", WHY)
        assert paused.code == 0, paused.err
        waiting = scene.enqueue(20)
        eventually(lambda: scene.depth() == len(waiting), "none is taken", why=lambda: worker.log)
        ran = desk.purge("--reason", WHY, "--confirm", "20", "--json")
        assert ran.document["cancelled"] == len(waiting), ran.err
        assert scene.depth() == 0
        assert desk.run("resume", "exec", "--reason", WHY).code == 0
        scene.harness.open_gate("open")
        (later,) = scene.enqueue(1)
        for job in (*running, later):
            scene.harness.await_state(job, State.COMPLETED)
        for job in waiting:
            scene.check_cancelled(job)
            assert scene.harness.runs(job) == 0
