"""After a kill of a worker, `check`, `jobs show` and `reconcile` say the same of its job.

On both brokers, for a job of Taskyard's workers and for a task of an installed app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.handlers import Notes
from support.legacy_fixtures import legacy_on
from support.shell import Shell
from support.waiting import eventually
from support.worker import Worker, environment_of
from support.yard import catalogue, fresh_settings
from taskyard.client import Taskyard
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

# Each program that opens Taskyard's Redis transport, also `check`, returns dead workers' messages.
KILLED = {
    "redis": {"dead worker", "queue"},
    "rabbitmq": {"rabbitmq"},
    "redis by kombu": {"dead worker"},
}


@dataclass(frozen=True)
class Scene:
    """A job that waits at its gate in a worker, which `kill` ends with all its processes.

    `start` starts a worker of another name.
    """

    settings: Settings
    job: str
    kill: Callable[[], None]
    start: Callable[[], object]
    open_gate: Callable[[], None]


@pytest.fixture
def scene(kind: str, broker: str, servers: Servers, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = _native if kind == "native" else _app
        yield made(stack, broker, servers, tmp_path)


def _native(stack: ExitStack, broker: str, servers: Servers, folder: Path) -> Scene:
    at = servers.rabbitmq_url() if broker == "rabbitmq" else None
    settings = fresh_settings(servers.valkey_url(), **({} if at is None else {"broker_url": at}))
    client = stack.enter_context(connect(settings.need_redis_url()))
    notes = Notes(client, settings.namespace)
    first, second = (
        stack.enter_context(Worker(settings, folder / name, queues=["exec"], name=name))
        for name in ("first", "second")
    )
    first.start()
    yard = stack.enter_context(Taskyard(settings, catalogue()))
    job = yard.enqueue("exec_act", {"do": "return", "gate": "g"})

    def kill() -> None:
        first.kill_session()
        first.wait()

    return Scene(settings, job.job_id, kill, second.start, lambda: notes.open_gate("g"))


def _app(stack: ExitStack, broker: str, servers: Servers, folder: Path) -> Scene:
    legacy = stack.enter_context(legacy_on(broker, servers, folder))
    first = legacy.worker("first")
    tasks = stack.enter_context(legacy.producer())
    job = tasks.gated.delay("g")
    return Scene(
        legacy.settings,
        job.id,
        first.kill,
        lambda: legacy.worker("second"),
        lambda: legacy.open_gate("g", 2),
    )


@pytest.mark.parametrize(
    ("kind", "broker"),
    [
        ("native", "redis"),
        ("native", "rabbitmq"),
        ("app", "redis"),
        ("app", "rabbitmq"),
        ("app", "redis by kombu"),
    ],
)
@pytest.mark.slow  # a worker counts as dead 15 s after its last heartbeat
def test_a_killed_workers_job_is_the_same_in_check_show_and_reconcile_until_another_runs_it(
    scene: Scene, broker: str, servers: Servers, tmp_path: Path, database_url: str
) -> None:
    shell = Shell(
        tmp_path, {**environment_of(scene.settings), "TASKYARD_DATABASE_URL": database_url}
    )
    with connect(scene.settings.need_redis_url()) as client:
        records = Records(client, scene.settings)
        eventually(lambda: records.read(scene.job).state == "running", "the job runs")
        scene.kill()
        set_lease(records, scene.job, 600)

        eventually(lambda: "is dead" in shell.run("check").out, "check notices the death")
        shown = shell.run("jobs", "show", scene.job)
        assert ", and not renewed: worker " in shown.out, shown
        assert_agree(shell, scene.job, KILLED[broker])

        set_lease(records, scene.job, -1)
        assert "; worker " in shell.run("jobs", "show", scene.job).out
        assert_agree(shell, scene.job, KILLED[broker])

        scene.open_gate()
        scene.start()
        eventually(lambda: records.read(scene.job).state == "completed", "the job completes")
    checked = shell.run("check").out
    assert checked.count(" is dead: its last heartbeat came ") == 1
    assert "No job that it had begun waits. Start it again." in " ".join(checked.split())
    assert shell.run("reconcile", "--json").document["continuing"] == {"count": 0, "jobs": []}


def set_lease(records: Records, job: str, seconds: float) -> None:
    """Have the lease end in so many seconds, so that a slow machine sees it valid and expired."""
    until = records.now_us() + int(seconds * 1e6)
    records.client.hset(records.keys.record(job), "lease_until", until)


def assert_agree(shell: Shell, job: str, places: set[str]) -> None:
    """Each of the three commands names the job, and the message is at one of `places`."""
    assert job in shell.run("check").out
    hands: dict[str, Any] = shell.run("jobs", "show", job, "--json").document["hands"]
    assert hands["worker_lives"] is False, hands
    assert hands["message_place"] in places, hands
    document = shell.run("reconcile", "--json").document
    named = [*document["continuing"]["jobs"], *document["findings"]]
    assert [one["job_id"] for one in named if one.get("job_id") == job] == [job]
