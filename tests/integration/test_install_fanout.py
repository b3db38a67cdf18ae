"""What comes from a fanout exchange runs on every worker, and each copy is observed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Exchange

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import TRANSPORTS, legacy_on
from support.waiting import SOON_S, eventually
from taskyard.install import AnnouncedQueues
from taskyard.ops.embedded.waiting import until

WORKERS = ("first", "second")


class BroadcastLegacy(Legacy):
    """The app with a queue of kombu's `Broadcast`."""

    def environment(self, mode: str | None = None, transport: bool | None = None) -> dict[str, str]:
        return {**super().environment(mode, transport), "LEGACY_BROADCAST": "1"}


@pytest.fixture(scope="module", params=TRANSPORTS)
def app(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Legacy]:
    folder = tmp_path_factory.mktemp("fanout")
    with legacy_on(request.param, servers, folder, kind=BroadcastLegacy, admit=True) as legacy:
        for name in WORKERS:
            legacy.starting(name, None, "-c", "1")
        for process in legacy.processes:
            process.await_log(" ready.")
        yield legacy


@pytest.fixture(scope="module")
def tasks(app: Legacy) -> Iterator[Any]:
    with app.producer() as module:
        eventually(lambda: _is_heard(app, module), "both workers listen", why=app.logs)
        yield module


def _is_heard(app: Legacy, tasks: Any) -> bool:
    """A worker that is ready may not listen yet, and then a copy at Redis does not reach it."""
    probe = to_everyone(app, tasks)
    return until(lambda: len(app.notes(f"{probe.id}:runs")) == len(WORKERS), within_s=2)


def to_everyone(app: Legacy, tasks: Any, *arguments: str) -> Any:
    # Celery declares no exchange for a `Broadcast`. At Redis it is told by that alone that the
    # exchange is a fanout; without it stock Celery's message reaches nobody there.
    exchange = Exchange(f"{app.prefix}.everywhere", type="fanout")
    return tasks.everywhere.apply_async(arguments, declare=[exchange])


def copies(app: Legacy, job_id: str) -> list[dict[str, str]]:
    """The records of a message's copies."""
    keys = app.redis.scan_iter(f"{app.settings.namespace}:job:{job_id}@*", count=1000)
    return [app.record(key.decode().split(":job:")[1]) for key in keys]


def test_every_worker_runs_its_copy_and_each_copy_has_a_record(app: Legacy, tasks: Any) -> None:
    result = to_everyone(app, tasks)
    ran = app.await_notes(f"{result.id}:runs", 2)
    assert len(set(ran)) == 2
    eventually(
        lambda: [copy["state"] for copy in copies(app, result.id)] == ["completed"] * 2,
        "both copies completed",
        why=lambda: f"{copies(app, result.id)}\n{app.logs()}",
    )
    assert app.record(result.id) == {}
    assert result.get(timeout=SOON_S) == "done"


def test_each_copy_that_fails_leaves_a_letter_that_no_replay_takes(app: Legacy, tasks: Any) -> None:
    result = to_everyone(app, tasks, "fail")
    ran = app.await_notes(f"{result.id}:runs", 2)

    def letters() -> list[Any]:
        found = app.at_broker.letters()
        return [letter for letter in found if letter.job_id.startswith(f"{result.id}@")]

    eventually(lambda: len(letters()) == 2, "a letter of each copy", why=app.logs)
    assert {letter.worker for letter in letters()} == set(ran)
    for letter in letters():
        assert (letter.job_type, letter.error_class) == ("legacy.everywhere", "ValueError")
        assert letter.evidence["fanout_exchange"] == f"{app.prefix}.everywhere"
        assert not letter.replay_eligible


def test_the_same_task_in_a_queue_of_work_is_protected(app: Legacy, tasks: Any) -> None:
    once = tasks.everywhere.apply_async(queue=f"{app.prefix}.work", task_id=f"{app.prefix}-once")
    assert once.get(timeout=SOON_S) == "done"
    assert app.await_state(once.id, "completed")["queue"] == f"{app.prefix}.work"
    tasks.everywhere.apply_async(queue=f"{app.prefix}.work", task_id=once.id)
    tasks.ignored.delay(f"after:{once.id}")
    app.await_notes(f"after:{once.id}", 1)
    eventually(lambda: app.at_broker.queued(f"{app.prefix}.work") == 0, "an empty queue")
    assert len(app.notes(f"{once.id}:runs")) == 1
    assert copies(app, once.id) == []


def test_operators_are_shown_no_queue_of_copies(app: Legacy) -> None:
    places = AnnouncedQueues(app.redis, app.settings.namespace)
    eventually(places.all, "the queues that the workers read")
    assert {place.queue for place in places.all()} == {
        f"{app.prefix}.work",
        f"{app.prefix}.orders",
    }
    assert (
        f"of the fanout exchange {app.prefix}.everywhere are only observed" in app.processes[0].log
    )


def test_copies_that_celery_revokes_do_not_run(app: Legacy, tasks: Any) -> None:
    gate = uuid.uuid4().hex
    held = [tasks.gated.delay(gate) for _ in WORKERS]
    for one in held:
        app.await_notes(f"{one.id}:runs", 1)
    revoked = to_everyone(app, tasks)
    with tasks.gated.app.connection_for_write() as connection:
        replies = tasks.gated.app.control.broadcast(
            "revoke",
            {"task_id": revoked.id},
            pattern=f"*-{app.prefix}@*",
            matcher="glob",
            reply=True,
            limit=len(WORKERS),
            timeout=5,
            connection=connection,
        )
    assert len(replies) == len(WORKERS)
    later = to_everyone(app, tasks)
    app.open_gate(gate, len(WORKERS))
    app.await_notes(f"{later.id}:runs", len(WORKERS))
    assert app.notes(f"{revoked.id}:runs") == []
