"""Reroute tasks of an installed app: to another queue that its workers read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from support.legacy import Legacy
from support.legacy_fixtures import legacy_fixtures
from support.relay import relaying
from support.waiting import SOON_S, eventually
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.control import Control, VerbOutcome
from taskyard.records import Records
from taskyard.store import connect

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "The workers of this queue are down for maintenance today"

app, tasks = legacy_fixtures("protect")


class Operator:
    """Moves jobs of the app."""

    def __init__(self, app: Legacy, database: Engine) -> None:
        self.app = app
        self.database, self.orders = database, f"{app.prefix}.orders"
        self.client = connect(app.settings.need_redis_url())
        self.control = Control(database, Records(self.client, app.settings), OPS)

    def reroute(self, job_id: str, queue: str | None = None) -> VerbOutcome:
        return self.control.reroute(job_id, queue or self.orders, reason=WHY)

    def answer(self, outcome: VerbOutcome) -> str:
        def rows() -> list[str]:
            with self.database.connect() as connection:
                return [row["outcome"] for row in rows_of(connection, outcome.request_id)]

        eventually(lambda: len(rows()) == 2, "the relay's answer", why=self.app.logs)
        return rows()[1]


@pytest.fixture(scope="module")
def operator(app: Legacy, database: Engine) -> Iterator[Operator]:
    with relaying(app.settings, database):
        made = Operator(app, database)
        yield made
        made.client.close()


def test_a_task_without_a_record_runs_in_its_new_queue(
    app: Legacy, tasks: Any, operator: Operator
) -> None:
    gate = uuid.uuid4().hex
    held = [tasks.gated.delay(gate) for _ in range(2)]
    for one in held:
        app.await_state(one.id, "running")
    waiting = tasks.once.delay()
    assert app.record(waiting.id) == {}
    outcome = operator.reroute(waiting.id)
    app.await_state(waiting.id, "rerouted")
    app.open_gate(gate, 2)
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
