"""A purge that says no more: its own request is answered once, by itself or by a relay."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, update

from servers import Servers
from support.purging import ADMIN, BROKERS, WHY, Crash, PurgeScene, purging
from support.shell import connected_shell
from support.waiting import eventually
from taskyard import audit, outbox
from taskyard.access import Action
from taskyard.audit import Outcome
from taskyard.control.operator_verb import VerbCall
from taskyard.control.purge_batch import RELAY_AFTER
from taskyard.database.tables import OUTBOX
from taskyard.errors import PurgeStopped
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.records import OperatorVerbs, Records
from taskyard.relay import answer_silent_purge

SILENT = (
    "refused: the purge ended before it said what it did; {} jobs were cancelled (see its jobs' "
    "rows); run it again"
)
# The command, killed at a call of a function: its module, its name, and which of its calls.
pytestmark = pytest.mark.slow

KILLED = """
import importlib, os, runpy, signal, sys
module, name, at = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
owner = importlib.import_module(module)
original, calls = getattr(owner, name), []
def killed(*arguments, **keywords):
    calls.append(1)
    if len(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **keywords)
setattr(owner, name, killed)
runpy.run_module("taskyard.ops.cli", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(params=BROKERS)
def scene(
    request: pytest.FixtureRequest, servers: Servers, empty_database: Engine
) -> Iterator[PurgeScene]:
    with purging(request.param, servers, empty_database) as made:
        yield made


def answers(scene: PurgeScene) -> list[str]:
    """The outcomes of the one purge."""
    (request,) = scene.purges()
    return [row["outcome"] for row in scene.rows(request)]


@pytest.mark.parametrize(
    ("function", "at", "cancelled"),
    [
        # Each batch of 200 keeps its relays off at its begin, in the transaction of its requests.
        pytest.param("keep_ahead", 2, 200, id="between two batches"),
        pytest.param("finish_own", 1, 450, id="before its last row"),
    ],
)
def test_the_request_of_a_killed_purge_is_answered_once(
    scene: PurgeScene,
    servers: Servers,
    database_url: str,
    tmp_path: Path,
    function: str,
    at: int,
    cancelled: int,
) -> None:
    scene.enqueue_many(450)
    shell = connected_shell(
        tmp_path,
        servers,
        database_url,
        TASKYARD_TRUST_LOCAL="1",
        TASKYARD_NAMESPACE=scene.settings.namespace,
        TASKYARD_BROKER_URL=scene.settings.need_broker_url(),
    )
    words = ("queues", "purge", "exec", "--reason", WHY, "--confirm", "450")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "taskyard.outbox", function, str(at), *words],
        env=shell.environ(),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert answers(scene) == ["requested"]
    run_relay_once(scene)
    assert answers(scene) == ["requested"], "the purge may still be at work"
    scene.relay_all()
    assert answers(scene) == ["requested", SILENT.format(cancelled)]
    scene.relay_all()
    assert (len(answers(scene)), scene.open_intents()) == (2, 0)
    eventually(lambda: scene.purge().remaining == 0, "the repeated purge ends")
    assert scene.depth() == 0


def run_relay_once(scene: PurgeScene) -> None:
    publisher = AnyQueuePublisher(scene.settings, scene.records)
    scene.relay(publisher).run_once()
    publisher.close()


def test_each_batch_keeps_the_relays_from_the_request_of_its_purge(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.enqueue_many(450)
    original = OperatorVerbs.many

    def cancel_late(verbs: OperatorVerbs, *arguments: Any) -> Any:
        # As if the last batch were nearly so long ago that a relay takes over.
        with scene.database.begin() as connection:
            (request,) = scene.purges()
            due = OUTBOX.c.not_before - (RELAY_AFTER - RELAY_AFTER / 6)
            moved = update(OUTBOX).where(OUTBOX.c.id == request).values(not_before=due)
            connection.execute(moved)
        run_relay_once(scene)
        return original(verbs, *arguments)

    monkeypatch.setattr(OperatorVerbs, "many", cancel_late)
    assert scene.purge().counts.cancelled == 450
    assert answers(scene) == ["requested", "applied"]
    scene.relay_all()
    assert answers(scene) == ["requested", "applied"]


def test_a_purge_that_goes_on_after_a_relay_has_answered_it_stops_with_the_same_count(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = scene.enqueue_many(450)
    original, calls = outbox.keep_ahead, []

    def keep_late(*arguments: Any) -> bool:
        calls.append(1)
        return original(*arguments)

    count = Records.note_gone_many

    def sleep_after_the_first_batch(records: Records, lives: Any) -> Any:
        answer = count(records, lives)
        if len(calls) == 1:
            scene.relay_all()
        return answer

    monkeypatch.setattr(outbox, "keep_ahead", keep_late)
    monkeypatch.setattr(Records, "note_gone_many", sleep_after_the_first_batch)
    with pytest.raises(PurgeStopped, match="a relay has answered its request"):
        scene.purge()
    assert answers(scene) == ["requested", SILENT.format(200)]
    assert sum(job.state() is State.CANCELLED for job in jobs) == 200
    eventually(lambda: scene.depth() == 250, "the others are still jobs")


def test_the_answers_of_a_purge_and_of_a_relay_exclude_each_other(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.enqueue(2)
    held, go_on = threading.Event(), threading.Event()
    original, finish = answer_silent_purge._why, outbox.finish_own
    relay = threading.Thread(target=run_relay_once, args=(scene,))

    def why_when_the_purge_waits(*counts: int) -> str:
        held.set()
        assert go_on.wait(20)
        return original(*counts)

    def finish_beside_the_relay(connection: Connection, request: Any) -> bool:
        scene.let_relays_act()
        relay.start()
        assert held.wait(20)
        # The purge waits for the relay's transaction, which goes on a moment later.
        threading.Timer(0.3, go_on.set).start()
        return finish(connection, request)

    monkeypatch.setattr(answer_silent_purge, "_why", why_when_the_purge_waits)
    monkeypatch.setattr(outbox, "finish_own", finish_beside_the_relay)
    assert scene.purge().counts.cancelled == 2
    relay.join(20)
    assert answers(scene) == ["requested", SILENT.format(2)]


def test_a_relay_leaves_the_request_that_its_purge_is_answering(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.enqueue(2)
    answer = audit.answer

    def answer_beside_a_relay(connection: Connection, *arguments: Any) -> None:
        answer(connection, *arguments)
        run_relay_once(scene)

    monkeypatch.setattr(audit, "answer", answer_beside_a_relay)
    original = outbox.finish_own

    def finish_when_due(connection: Connection, request: Any) -> bool:
        scene.let_relays_act()
        return original(connection, request)

    monkeypatch.setattr(outbox, "finish_own", finish_when_due)
    scene.purge()
    scene.relay_all()
    assert answers(scene) == ["requested", "applied"]


def test_a_purge_whose_postgres_fails_at_the_end_is_answered_by_a_relay(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.enqueue(3)

    def die(*_: Any) -> bool:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "finish_own", die)
        with pytest.raises(Crash):
            scene.purge()
    scene.relay_all()
    assert answers(scene) == ["requested", SILENT.format(3)]


def test_an_intent_to_answer_a_request_that_is_no_purge_is_dropped(scene: PurgeScene) -> None:
    call = VerbCall(Action.CREATE_TOKEN, ADMIN, WHY)
    facts: Mapping[str, Any] = {"kind": "purge_queue", "epoch": 0, "payload": {}}
    with scene.database.begin() as connection:
        call.write(connection, Outcome.REQUESTED, {})
        values = {"id": call.request_id, "job_id": str(call.request_id), **facts}
        connection.execute(insert(OUTBOX).values(values))
    scene.relay_all()
    assert [row["outcome"] for row in scene.rows(call.request_id)] == ["requested"]
    assert scene.open_intents() == 0
