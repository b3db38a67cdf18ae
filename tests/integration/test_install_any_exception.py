"""Whatever a protected task raises is its failure, in every pool, and told as any other."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.odd_exceptions import RAISED, SIGNAL_EXIT
from support.waiting import SOON_S, eventually

POOLS = ("prefork", "threads", "solo", "gevent")
# Raised by `get()` in the caller's process they would end it.
ENDING = ("KeyboardInterrupt", "SystemExit", SIGNAL_EXIT, "WorkerShutdown", "WorkerTerminate")

# Celery's own name for what it cannot pickle.
UNPICKLED = {"Timeout": "UnpickleableExceptionWrapper"}


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def app(pool: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Legacy]:
    # RabbitMQ once: which broker it is makes no difference to what a task raises.
    broker = "rabbitmq" if pool == "prefork" else "redis"
    with legacy_on(broker, servers, tmp_path_factory.mktemp(pool)) as legacy:
        # A worker without an event loop looks for a message once a second while it holds its count.
        legacy.worker(pool, None, "-P", pool, *(["-c", "16"] if pool == "gevent" else []))
        yield legacy


@pytest.fixture(scope="module")
def tasks(app: Legacy) -> Iterator[Any]:
    with app.producer() as module:
        yield module


@pytest.mark.parametrize("kind", RAISED)
def test_what_a_task_raises_is_its_only_failure_and_is_told_as_any_other(
    app: Legacy, tasks: Any, kind: str
) -> None:
    result = tasks.raises.delay(kind)
    letter = app.await_letter(result.id)
    real = "SystemExit" if kind == SIGNAL_EXIT else kind
    assert letter.error_class == real
    assert letter.category == ("timeout" if kind == "Timeout" else "non_retryable")
    assert app.events(result.id) == ["begin", "fail"]
    eventually(lambda: result.state == "FAILURE", "the caller knows", why=app.logs)
    seen = "DeadLettered" if kind in ENDING else UNPICKLED.get(kind, real)
    assert type(result.result).__name__ == seen
    hooks = ["before_start", f"on_failure {seen}"]
    eventually(lambda: app.notes(f"{result.id}:hooks")[:2] == hooks, "its hooks", why=app.logs)
    assert app.notes(f"{result.id}:signals") == [f"failure {seen}"]
    assert app.notes(f"{result.id}:runs") == ["1"]


@pytest.mark.parametrize("kind", RAISED)
def test_autoretry_for_takes_it_and_max_retries_holds(app: Legacy, tasks: Any, kind: str) -> None:
    healed = tasks.raises_auto.delay(kind, 1)
    spent = tasks.raises_auto.delay(kind, 99)
    assert healed.get(timeout=SOON_S) == "sound"
    assert app.events(healed.id) == ["begin", "retry", "begin", "complete"]
    letter = app.await_letter(spent.id)
    assert letter.error_class == ("SystemExit" if kind == SIGNAL_EXIT else kind)
    assert letter.category == ("timeout" if kind == "Timeout" else "retry_exhausted")
    assert app.events(spent.id) == ["begin", "retry", "begin", "retry", "begin", "fail"]
    assert app.notes(f"{spent.id}:runs") == ["1"] * 3


@pytest.mark.parametrize("kind", ["Panic", "ValueError"])
def test_what_before_start_raises_is_the_tasks_failure(app: Legacy, tasks: Any, kind: str) -> None:
    result = tasks.starts_badly.delay(kind)
    assert app.await_letter(result.id).error_class == kind
    assert app.events(result.id) == ["begin", "fail"]


def test_the_worker_goes_on_after_all_of_it(app: Legacy, tasks: Any) -> None:
    assert tasks.add.delay(1, 2).get(timeout=SOON_S) == 3


@pytest.mark.parametrize("kind", ["Panic", "CancelledError"])
def test_a_watched_task_leaves_its_letter_also_where_celery_never_ends_it(
    app: Legacy, tasks: Any, pool: str, kind: str
) -> None:
    if pool == "solo":
        pytest.skip("there Celery's worker ends with such an exception, as it does without us")
    result = tasks.raises_watched.delay(kind)
    assert app.await_letter(result.id).error_class == kind


# -- who was asked to end ---------------------------------------------------------------------


def test_a_task_that_a_control_command_ends_is_aborted_and_not_failed(
    app: Legacy, tasks: Any, pool: str
) -> None:
    if pool == "solo":
        pytest.skip("there a worker takes no command while a task runs")
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_notes(f"{result.id}:runs", 1)
    result.revoke(terminate=True)
    app.await_state(result.id, "aborted")
    if pool == "threads":
        app.open_gate(gate)  # a thread cannot be stopped
    eventually(lambda: result.state == "REVOKED", "the app reports it", why=app.logs)
    assert app.events(result.id) == ["begin", "abort"]
    assert app.letters(result.id) == []


def test_a_process_that_was_asked_to_end_has_no_outcome_and_costs_no_retry(
    servers: Servers, tmp_path: Path
) -> None:
    with legacy_on("redis", servers, tmp_path) as legacy, legacy.producer() as tasks:
        worker = legacy.worker()
        gate = f"g-{legacy.prefix}"
        result = tasks.raises_auto.delay(gate, 99)
        legacy.await_notes(f"{result.id}:runs", 1)
        os.kill(int(legacy.record(result.id)["process"]), signal.SIGTERM)
        legacy.await_notes(f"{result.id}:runs", 2)
        legacy.open_gate(gate)
        assert result.get(timeout=SOON_S) == "waited"
        assert legacy.events(result.id) == ["begin", "lose", "begin", "complete"], worker.log
