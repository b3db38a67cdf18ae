"""Cancel tasks of an installed app: protected ones stop, and Celery reports them as revoked."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError

from support.legacy import Legacy
from support.legacy_fixtures import legacy_fixtures
from support.legacy_operator import Operator, operator_fixtures
from support.waiting import SOON_S, eventually
from taskyard.control.live_verb import WAIT_S

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

app, tasks = legacy_fixtures("protect")
operator, busy = operator_fixtures(WAIT_S)


def test_a_task_without_a_record_is_cancelled_and_celery_reports_it_as_revoked(
    app: Legacy, tasks: Any, operator: Operator, busy: str
) -> None:
    waiting = tasks.once.delay()
    assert app.record(waiting.id) == {}
    assert operator.answer(operator.cancel(waiting.id)) == "applied"
    app.open_gate(busy, 2)
    with pytest.raises(TaskRevokedError, match="cancelled by an operator"):
        waiting.get(timeout=SOON_S)
    assert app.await_notes(f"{waiting.id}:signals", 1) == ["revoked"]
    assert app.notes(f"{waiting.id}:runs") == []
    eventually(lambda: "kept" not in app.record(waiting.id), "its message was seen")


def test_a_retry_that_waits_is_cancelled(app: Legacy, tasks: Any, operator: Operator) -> None:
    result = tasks.later.delay()
    app.await_state(result.id, "retrying")
    assert operator.answer(operator.cancel(result.id)) == "applied"
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SOON_S)
    assert app.record(result.id)["state"] == "cancelled"


def test_a_task_that_runs_on_completes_and_the_operator_hears_it(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_state(result.id, "running")
    outcome = operator.cancel(result.id)
    assert outcome.outcome == "pending"
    app.open_gate(gate)
    assert result.get(timeout=SOON_S) == 1
    assert operator.answer(outcome).startswith(f"refused: job {result.id} is completed")


def test_a_chord_whose_part_is_cancelled_fails(
    app: Legacy, tasks: Any, operator: Operator, busy: str
) -> None:
    part = str(uuid.uuid4())
    header = [tasks.add.s(1, 1), tasks.add.s(2, 2).set(task_id=part)]
    result = chord(header)(tasks.total.s())
    assert operator.answer(operator.cancel(part)) == "applied"
    app.open_gate(busy, 2)
    eventually(lambda: result.state == "FAILURE", "the chord's end", why=app.logs)
    assert type(result.result) is ChordError
