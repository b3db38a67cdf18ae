"""What protection adds to an existing app: one outcome a job, a letter for every death."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_fixtures, legacy_on
from support.waiting import SOON_S, eventually

app, tasks = legacy_fixtures("protect")


def test_a_job_is_recorded_from_begin_to_end(app: Legacy, tasks: Any) -> None:
    result = tasks.add.delay(1, 2)
    assert result.get(timeout=SOON_S) == 3
    record = app.await_state(result.id, "completed")
    assert (record["type"], record["queue"]) == ("legacy.add", f"{app.prefix}.work")
    assert app.events(result.id) == ["begin", "complete"]


def test_the_same_id_twice_runs_once(app: Legacy, tasks: Any) -> None:
    first = tasks.once.apply_async(task_id=f"{app.prefix}-twice")
    assert first.get(timeout=SOON_S) == 1
    tasks.once.apply_async(task_id=first.id)
    tasks.ignored.delay(f"after:{first.id}")
    app.await_notes(f"after:{first.id}", 1)
    eventually(lambda: app.at_broker.queued(f"{app.prefix}.work") == 0, "an empty queue")
    assert app.notes(f"{first.id}:runs") == ["1"]


def test_the_same_id_at_once_waits_for_the_other(app: Legacy, tasks: Any) -> None:
    gate = f"g-{app.prefix}"
    first = tasks.gated.apply_async((gate,), task_id=f"{app.prefix}-at-once")
    tasks.gated.apply_async((gate,), task_id=first.id)
    app.await_notes(f"{first.id}:runs", 1)
    eventually(lambda: app.at_broker.waiting() == 1, "the second put off", why=app.logs)
    app.open_gate(gate)
    assert first.get(timeout=SOON_S) == 1


def test_a_failure_leaves_one_letter_with_its_cause(app: Legacy, tasks: Any) -> None:
    result = tasks.fail.delay("cause")
    letter = app.await_letter(result.id)
    assert (letter.category, letter.error_class, letter.error_message) == (
        "non_retryable",
        "ValueError",
        "cause",
    )
    assert (letter.job_type, letter.queue, letter.args) == (
        "legacy.fail",
        f"{app.prefix}.work",
        ["cause"],
    )
    assert letter.replay_eligible
    assert isinstance(result.result, ValueError)


def test_spent_retries_leave_one_letter_with_every_attempt(app: Legacy, tasks: Any) -> None:
    result = tasks.insist.delay(99)
    letter = app.await_letter(result.id)
    assert letter.category == "retry_exhausted"
    assert [note.outcome for note in letter.attempts] == ["retrying", "retrying", "dead_lettered"]
    assert app.events(result.id) == ["begin", "retry", "begin", "retry", "begin", "fail"]


def test_a_retry_waits_at_the_broker_and_not_in_a_worker(app: Legacy, tasks: Any) -> None:
    result = tasks.later.delay()
    app.await_state(result.id, "retrying")
    eventually(app.at_broker.waiting, "it in the delay store", why=app.logs)
    assert result.get(timeout=SOON_S) == 1


def test_a_message_with_a_date_waits_at_the_broker(app: Legacy, tasks: Any) -> None:
    result = tasks.once.apply_async(countdown=4)
    app.await_state(result.id, "accepted")
    eventually(app.at_broker.waiting, "it in the delay store", why=app.logs)
    assert result.get(timeout=SOON_S) == 1


@pytest.mark.parametrize("options", [{}, {"countdown": 1.5}])
def test_a_message_that_has_waited_is_retried_with_a_wait(
    app: Legacy, tasks: Any, options: dict[str, Any]
) -> None:
    result = tasks.patient.apply_async((3,), **options)
    assert result.get(timeout=SOON_S) == 3, app.logs()
    assert app.events(result.id).count("retry") == 3


def test_a_killed_process_costs_nothing_but_time(app: Legacy, tasks: Any) -> None:
    result = tasks.crash.delay(1)
    assert result.get(timeout=SOON_S) == 2
    assert "lose" in app.events(result.id)


@pytest.mark.slow
def test_a_task_that_kills_its_process_each_time_is_poison(app: Legacy, tasks: Any) -> None:
    result = tasks.crash.delay(99)
    letter = app.await_letter(result.id)
    assert (letter.category, letter.evidence["counter"]) == ("poison", "deaths")
    assert len(app.notes(f"{result.id}:runs")) == app.settings.death_limit
    eventually(lambda: result.state == "FAILURE", "the app reports it")


def test_a_hard_limit_leaves_a_letter(app: Legacy, tasks: Any) -> None:
    result = tasks.overtime.delay()
    assert app.await_letter(result.id).category == "timeout"


def test_a_task_that_leaves_its_process_leaves_a_letter(app: Legacy, tasks: Any) -> None:
    result = tasks.leave.delay()
    letter = app.await_letter(result.id)
    assert letter.code == "system_exit"
    assert app.notes(f"{result.id}:runs") == ["1"]


def test_a_rejected_task_leaves_a_letter(app: Legacy, tasks: Any) -> None:
    result = tasks.reject.delay()
    assert app.await_letter(result.id).category == "rejected"


def test_an_expired_task_leaves_a_letter(app: Legacy, tasks: Any) -> None:
    result = tasks.add.apply_async((1, 2), expires="2001-01-01T00:00:00+00:00")
    assert app.await_letter(result.id).category == "expired"


def test_a_terminated_task_is_aborted_and_leaves_no_letter(app: Legacy, tasks: Any) -> None:
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_notes(f"{result.id}:runs", 1)
    result.revoke(terminate=True, signal="SIGKILL")
    app.await_state(result.id, "aborted")
    eventually(lambda: result.state == "REVOKED", "the app reports it", why=app.logs)
    assert app.letters(result.id) == []


def test_an_unknown_task_leaves_a_letter_and_the_app_hears_of_it(app: Legacy, tasks: Any) -> None:
    result = tasks.app.send_task("legacy.nobody", queue=f"{app.prefix}.work")
    assert app.await_letter(result.id).category == "unknown_task"
    eventually(lambda: result.state == "FAILURE", "Celery's own word", why=app.logs)


def test_a_replaced_job_ends_with_its_replacement(app: Legacy, tasks: Any) -> None:
    for what in ("task", "chain", "group"):
        result = tasks.become.delay(what)
        result.get(timeout=SOON_S)
        app.await_state(result.id, "completed")
        assert app.events(result.id) == ["begin", "retry", "begin", "complete"]


def test_what_may_not_be_protected_is_watched(app: Legacy, tasks: Any) -> None:
    for task, arguments in ((tasks.early, ()), (tasks.in_yaml, (1,)), (tasks.watched, ())):
        result = task.delay(*arguments)
        app.await_state(result.id, "completed")
        assert "token" in app.record(result.id)
    assert "the task sets acks_late=False itself" in app.processes[0].log
    assert "serializer 'yaml'" in app.processes[0].log


def test_a_task_that_is_left_alone_is_not_recorded(app: Legacy, tasks: Any) -> None:
    result = tasks.left_alone.delay()
    assert result.get(timeout=SOON_S) == 1
    assert app.record(result.id) == {}


def test_a_completed_job_that_comes_again_repeats_its_continuation(app: Legacy, tasks: Any) -> None:
    job_id, name = f"{app.prefix}-again", f"again:{app.prefix}"
    first = tasks.once.apply_async(task_id=job_id)
    assert first.get(timeout=SOON_S) == 1
    tasks.once.apply_async(task_id=job_id, link=tasks.callback.s(name))
    assert app.await_notes(name, 1) == ["1"]
    assert app.notes(f"{job_id}:runs") == ["1"]


def test_without_a_stored_result_the_record_gives_the_continuation(app: Legacy, tasks: Any) -> None:
    job_id, name = f"{app.prefix}-forgotten", f"forgotten:{app.prefix}"
    first = tasks.once.apply_async(task_id=job_id)
    assert first.get(timeout=SOON_S) == 1
    first.forget()
    tasks.once.apply_async(task_id=job_id, link=tasks.callback.s(name))
    assert app.await_notes(name, 1) == ["1"]
    assert app.notes(f"{job_id}:runs") == ["1"]


@pytest.mark.parametrize("broker", BROKERS)
def test_a_worker_that_is_killed_leaves_its_job_to_the_next(
    broker: str, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on(broker, servers, tmp_path, lease_s=2) as legacy:
        worker = legacy.worker("first")
        with legacy.producer() as tasks:
            gate = f"g-{legacy.prefix}"
            result = tasks.gated.delay(gate)
            legacy.await_notes(f"{result.id}:runs", 1)
            worker.kill()
            legacy.at_broker.return_unacknowledged(legacy.prefix)
            legacy.worker("second")
            legacy.await_notes(f"{result.id}:runs", 2)
            legacy.open_gate(gate, 2)
            assert result.get(timeout=SOON_S) == 2


@pytest.mark.parametrize("broker", BROKERS)
def test_a_warm_shutdown_ends_with_zero(broker: str, servers: Servers, tmp_path: Path) -> None:
    with legacy_on(broker, servers, tmp_path) as legacy:
        worker = legacy.worker()
        worker.terminate()
        assert worker._process is not None
        assert worker._process.returncode == 0
