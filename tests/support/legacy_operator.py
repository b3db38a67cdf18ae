"""An operator who ends jobs of the legacy app by force."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Engine

from support.legacy import Legacy
from support.operated import DONE, OPS, WHY
from support.waiting import SOON_S
from taskyard.control import Control, VerbOutcome
from taskyard.records import Records
from taskyard.store import connect

__all__ = ["Operator", "running"]


class Operator:
    """Ends jobs of the app."""

    def __init__(self, app: Legacy, database: Engine) -> None:
        self.client = connect(app.settings.need_redis_url())
        records = Records(self.client, app.settings)
        self.control = Control(database, records, OPS, wait_s=SOON_S)

    def abort(self, job_id: str) -> VerbOutcome:
        return self.control.abort(job_id, reason=WHY)

    def complete(self, job_id: str, result: Any) -> VerbOutcome:
        return self.control.complete(job_id, reason=WHY, summary=DONE, result=result)


def running(app: Legacy, tasks: Any) -> tuple[Any, str]:
    """A task that waits at the gate that is returned with it."""
    gate = uuid.uuid4().hex
    result = tasks.gated.delay(gate)
    app.await_state(result.id, "running")
    app.await_notes(f"{result.id}:runs", 1)
    return result, gate
