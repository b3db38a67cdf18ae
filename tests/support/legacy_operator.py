"""An operator who ends or moves jobs of the legacy app, and what its workers are busy with."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine

from support.legacy import Legacy
from support.operated import DONE, OPS, WHY
from support.relay import relaying
from support.waiting import SOON_S, eventually
from taskyard.audit import rows_of
from taskyard.control import Control, VerbOutcome
from taskyard.records import Records
from taskyard.store import connect

__all__ = ["Operator", "busy_processes", "operator_fixtures", "running"]


class Operator:
    """Ends or moves jobs of the app; `orders` is another queue of its workers."""

    def __init__(self, app: Legacy, database: Engine, wait_s: float = SOON_S) -> None:
        self.app, self.database = app, database
        self.orders = f"{app.prefix}.orders"
        self.client = connect(app.settings.need_redis_url())
        records = Records(self.client, app.settings)
        self.control = Control(database, records, OPS, wait_s=wait_s)

    def cancel(self, job_id: str) -> VerbOutcome:
        return self.control.cancel(job_id, reason=WHY)

    def abort(self, job_id: str) -> VerbOutcome:
        return self.control.abort(job_id, reason=WHY)

    def complete(self, job_id: str, result: Any) -> VerbOutcome:
        return self.control.complete(job_id, reason=WHY, summary=DONE, result=result)

    def reroute(self, job_id: str, queue: str | None = None) -> VerbOutcome:
        return self.control.reroute(job_id, queue or self.orders, reason=WHY)

    def answer(self, outcome: VerbOutcome) -> str:
        """The relay's answer in the audit log."""

        def rows() -> list[str]:
            with self.database.connect() as connection:
                return [row["outcome"] for row in rows_of(connection, outcome.request_id)]

        eventually(lambda: len(rows()) == 2, "the relay's answer", why=self.app.logs)
        return rows()[1]


def operator_fixtures(wait_s: float = SOON_S) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A module's fixtures `operator`, with a mirror and a relay, and `busy`, an unopened gate.

    A verb waits `wait_s` for the relay's answer.
    """

    @pytest.fixture(scope="module")
    def operator(app: Legacy, database: Engine) -> Iterator[Operator]:
        with relaying(app.settings, database):
            made = Operator(app, database, wait_s)
            yield made
            made.client.close()

    @pytest.fixture
    def busy(app: Legacy, tasks: Any) -> Iterator[str]:
        with busy_processes(app, tasks, 2) as gate:
            yield gate

    return operator, busy


@contextmanager
def busy_processes(app: Legacy, tasks: Any, count: int) -> Iterator[str]:
    """All processes work until the gate that is yielded opens; what follows has no record."""
    gate = uuid.uuid4().hex
    held = [tasks.gated.delay(gate) for _ in range(count)]
    for one in held:
        app.await_state(one.id, "running")
    yield gate
    app.open_gate(gate, count)
    for one in held:
        one.get(timeout=SOON_S)


def running(app: Legacy, tasks: Any) -> tuple[Any, str]:
    """A task that waits at the gate that is returned with it."""
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_state(result.id, "running")
    app.await_notes(f"{result.id}:runs", 1)
    return result, gate
