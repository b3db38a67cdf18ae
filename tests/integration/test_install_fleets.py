"""Workers with and without Taskyard on one queue, on the way in, and on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import TRANSPORTS, legacy_on
from support.waiting import SOON_S, eventually

EXPIRES_S = 0.5


@pytest.fixture(params=TRANSPORTS)
def app(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Legacy]:
    with legacy_on(request.param, servers, tmp_path) as legacy:
        yield legacy


def test_a_mixed_fleet_runs_every_job_once(app: Legacy) -> None:
    app.worker("with", "protect")
    app.worker("without", "none")
    app.worker("watching", "observe")
    with app.producer() as tasks:
        plain = [tasks.once.delay() for _ in range(30)]
        retried = [tasks.insist.delay(3) for _ in range(10)]
        replaced = [tasks.become.delay("chain") for _ in range(5)]
        assert [result.get(timeout=SOON_S) for result in plain] == [1] * 30
        assert [result.get(timeout=SOON_S) for result in retried] == [[3, "xx", 2]] * 10
        assert [result.get(timeout=SOON_S) for result in replaced] == [42] * 5
        assert all(len(app.notes(f"{result.id}:runs")) == 1 for result in plain)


@pytest.mark.parametrize("mode", ["observe", "none"])
def test_what_replaces_a_task_that_another_worker_ran_has_its_id_and_runs(
    servers: Servers, tmp_path: Path, mode: str
) -> None:
    """Celery stamps nothing, so its message names another task than the record of that id."""
    # A lease that outlasts the test: none may wait for the end of another attempt's.
    with legacy_on("redis", servers, tmp_path, admit=True, lease_s=300) as app:
        ends_in = f"{app.prefix}.orders"
        app.worker("last", "protect", "-Q", ends_in)
        with app.producer() as tasks:
            replaced = [tasks.become.apply_async((what, ends_in)) for what in ("task", "chain") * 5]
            # The records are written in the background: the first worker must not be faster.
            for result in replaced:
                app.await_state(result.id, "accepted")
            app.worker("first", mode, "-Q", f"{app.prefix}.work")
            assert [result.get(timeout=SOON_S) for result in replaced] == [42] * 10
            assert app.at_broker.letters() == []
            for result in replaced:
                record = app.await_state(result.id, "completed")
                assert record["type"] == "legacy.become"


@pytest.mark.slow
def test_in_a_fleet_of_both_transports_each_killed_worker_leaves_its_jobs_to_the_others(
    servers: Servers, tmp_path: Path
) -> None:
    with legacy_on("redis", servers, tmp_path, lease_s=2) as app, app.producer() as tasks:
        gate = f"g-{app.prefix}"
        held: dict[str, list[Any]] = {}
        for name, transport in (("ours", True), ("kombus", False)):
            app.worker(name, "protect", transport=transport)
            # One a process: what a worker of the two has, the other cannot take.
            held[name] = [tasks.gated.delay(gate) for _ in range(2)]
            for result in held[name]:
                app.await_notes(f"{result.id}:runs", 1)
        for worker in app.processes:
            worker.kill()
        app.open_gate(gate, 8)
        app.worker("after", "protect", transport=True)
        app.worker("after by kombu", "protect", transport=False)
        assert [result.get(timeout=SOON_S) for result in held["ours"]] == [2, 2]
        # What kombu's transport held is out until its visibility timeout.
        app.at_broker.return_unacknowledged(app.prefix)
        assert [result.get(timeout=SOON_S) for result in held["kombus"]] == [2, 2]


def test_messages_of_before_are_run_after(app: Legacy) -> None:
    first = app.worker("before", "none")
    first.terminate()
    with app.producer() as tasks:
        waiting = [tasks.once.delay() for _ in range(5)]
        dated = tasks.once.apply_async(countdown=2)
        app.worker("after", "protect")
        assert [result.get(timeout=SOON_S) for result in waiting] == [1] * 5
        assert dated.get(timeout=SOON_S) == 1


def test_removed_with_messages_in_flight_nothing_is_lost(app: Legacy) -> None:
    protecting = app.worker("protecting", "protect")
    with app.producer() as tasks:
        dated = tasks.once.apply_async(countdown=4)
        retried = tasks.later.delay()
        app.await_state(retried.id, "retrying")
        app.await_state(dated.id, "accepted")
        protecting.terminate()
        waiting = [tasks.once.delay() for _ in range(5)]
        # On the way out: a worker that only watches moves what waits to its queue.
        watching = app.worker("watching", "observe")
        assert retried.get(timeout=SOON_S) == 1
        eventually(lambda: app.at_broker.waiting() == 0, "nothing that waits", why=app.logs)
        # Celery's pool may wait 30 s for what is in hand when it is told to end.
        assert dated.get(timeout=SOON_S) == 1
        assert [result.get(timeout=SOON_S) for result in waiting] == [1] * 5
        watching.terminate()
        waiting = [tasks.once.delay() for _ in range(5)]
        app.worker("without", "none")
        assert [result.get(timeout=SOON_S) for result in waiting] == [1] * 5


def test_a_retry_of_a_protected_worker_is_run_by_one_without(app: Legacy) -> None:
    protecting = app.worker("protecting", "protect")
    with app.producer() as tasks:
        gate = f"g-{app.prefix}"
        holding = [tasks.gated.delay(gate) for _ in range(2)]
        for result in holding:
            app.await_notes(f"{result.id}:runs", 1)
        waiting = tasks.insist.delay(1)
        app.worker("without", "none")
        assert waiting.get(timeout=SOON_S) == [1, "", 0]
        app.open_gate(gate, 2)
        assert [result.get(timeout=SOON_S) for result in holding] == [1, 1]
        protecting.terminate()


def test_what_expired_before_a_worker_came_leaves_a_letter(app: Legacy) -> None:
    app.worker("before", "protect").terminate()
    with app.producer() as tasks:
        result = tasks.once.apply_async(expires=EXPIRES_S)
        # RabbitMQ would drop it now, as Celery has it do.
        sleep(2 * EXPIRES_S)
        app.worker("after", "protect")
        assert app.await_letter(result.id).category == "expired"
    assert app.notes(f"{result.id}:runs") == []
