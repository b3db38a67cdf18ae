"""Abort and complete tasks of an installed app: its attempts are stopped, its callers hear it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError

from support.legacy import Legacy
from support.legacy_fixtures import legacy_fixtures
from support.legacy_operator import Operator, operator_fixtures, running
from support.waiting import SOON_S

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

app, tasks = legacy_fixtures("protect")
operator, busy = operator_fixtures()


def test_a_running_task_is_stopped_and_celery_reports_it_as_revoked(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    (result, _), (other, gate) = running(app, tasks), running(app, tasks)
    outcome = operator.abort(result.id)
    assert (outcome.outcome, outcome.attempt) == ("applied", "was stopped")
    with pytest.raises(TaskRevokedError, match="aborted by an operator"):
        result.get(timeout=SOON_S)
    app.open_gate(gate)
    assert other.get(timeout=SOON_S) == 1
    assert (app.notes(f"{result.id}:runs"), app.notes(f"{other.id}:runs")) == (["1"], ["1"])
    assert app.record(result.id)["state"] == "aborted"


def test_a_running_task_is_completed_and_its_chain_goes_on_with_the_operators_result(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    gate = uuid.uuid4().hex
    last = chain(tasks.gated.s(gate), tasks.add.s(1))()
    app.await_state(last.parent.id, "running")
    app.await_notes(f"{last.parent.id}:runs", 1)
    outcome = operator.complete(last.parent.id, 41)
    assert (outcome.outcome, outcome.attempt) == ("applied", "was stopped")
    assert last.parent.get(timeout=SOON_S) == 41
    assert last.get(timeout=SOON_S) == 42
    assert app.notes(f"{last.parent.id}:runs") == ["1"]


def test_a_task_without_a_record_is_completed_before_its_message_comes(
    app: Legacy, tasks: Any, operator: Operator, busy: str
) -> None:
    last = chain(tasks.once.s(), tasks.add.s(1))()
    assert operator.complete(last.parent.id, 41).outcome == "applied"
    app.open_gate(busy, 2)
    assert last.get(timeout=SOON_S) == 42
    assert app.notes(f"{last.parent.id}:runs") == []


def test_a_chord_whose_part_is_completed_by_hand_goes_on(
    app: Legacy, tasks: Any, operator: Operator, busy: str
) -> None:
    part = str(uuid.uuid4())
    header = [tasks.add.s(1, 1), tasks.add.s(2, 2).set(task_id=part)]
    result = chord(header)(tasks.total.s())
    assert operator.complete(part, 40).outcome == "applied"
    app.open_gate(busy, 2)
    assert result.get(timeout=SOON_S) == 42
