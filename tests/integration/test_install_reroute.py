"""Reroute tasks of an installed app: to another queue that its workers read."""

from __future__ import annotations

import uuid
from typing import Any

from support.legacy import Legacy
from support.legacy_fixtures import legacy_fixtures
from support.legacy_operator import Operator, operator_fixtures
from support.waiting import SOON_S
from taskyard.control.live_verb import WAIT_S

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

app, tasks = legacy_fixtures("protect")
operator, busy = operator_fixtures(WAIT_S)


def test_a_task_without_a_record_runs_in_its_new_queue(
    app: Legacy, tasks: Any, operator: Operator, busy: str
) -> None:
    waiting = tasks.once.delay()
    assert app.record(waiting.id) == {}
    outcome = operator.reroute(waiting.id)
    app.await_state(waiting.id, "rerouted")
    app.open_gate(busy, 2)
    waiting.get(timeout=SOON_S)
    assert operator.answer(outcome) == "applied"
    assert app.record(waiting.id)["queue"] == operator.orders
    assert app.events(waiting.id) == ["reroute", "requeue", "begin", "complete"]


def test_a_task_that_runs_is_killed_and_runs_again_in_its_new_queue(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_state(result.id, "running")
    outcome = operator.reroute(result.id)
    assert operator.answer(outcome) == "applied"
    app.open_gate(gate, 2)
    assert result.get(timeout=SOON_S) == 2, "its second run"
    assert app.record(result.id)["queue"] == operator.orders
    names = ["begin", "reroute", "requeue", "begin", "complete"]
    assert [name for name in app.events(result.id) if name != "admit"] == names


def test_a_retry_that_waits_runs_in_its_new_queue_with_celerys_counters_reset(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    result = tasks.later.delay()
    app.await_state(result.id, "retrying")
    assert operator.answer(operator.reroute(result.id)) == "applied"
    result.get(timeout=SOON_S)
    assert app.record(result.id)["queue"] == operator.orders


def test_a_task_of_an_app_does_not_move_into_a_queue_of_taskyards_own_workers(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    result = tasks.later.delay()
    app.await_state(result.id, "retrying")
    answer = operator.answer(operator.reroute(result.id, "exec"))
    assert answer.startswith(f"refused: job {result.id} is in queue {app.prefix}.work of an inst")
    unknown = operator.answer(operator.reroute(result.id, f"{app.prefix}.order"))
    assert unknown.startswith("refused: ")
    result.get(timeout=SOON_S)
