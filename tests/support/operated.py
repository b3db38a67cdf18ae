"""A worker, a relay and an operator who ends jobs by force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from servers import Servers
from support.rabbitmq import count_messages
from support.relay import relaying
from support.waiting import SOON_S, eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.client import JobHandle
from taskyard.control import Control, VerbOutcome
from taskyard.jobs.states import State
from taskyard.settings import Settings

__all__ = ["DONE", "OPS", "WHY", "Scene", "working"]

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Runaway request causing downstream circuit breakers to trip"
DONE = "User query answered via direct email"


class Scene:
    """A worker on plan and exec, a mirror and a relay; no worker on locator."""

    def __init__(self, settings: Settings, worker: Worker, database: Engine) -> None:
        self.settings, self.worker, self.database = settings, worker, database
        self.harness = ServerHarness(settings)
        self.control = Control(database, self.harness.yard.records, OPS, wait_s=SOON_S)

    def abort(self, job: JobHandle) -> VerbOutcome:
        return self.control.abort(job.job_id, reason=WHY)

    def complete(self, job: JobHandle, result: Any = None) -> VerbOutcome:
        return self.control.complete(job.job_id, reason=WHY, summary=DONE, result=result)

    def audited(self, outcome: VerbOutcome) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return list(map(dict, rows_of(connection, outcome.request_id)))

    def running(self, do: str = "return", **options: str) -> JobHandle:
        job = self.harness.act(do, **options)
        self.harness.await_state(job, State.RUNNING)
        eventually(lambda: self.harness.runs(job) == 1, "its handler", why=lambda: self.worker.log)
        return job

    def await_no_message(self) -> None:
        """Wait until no message is in a queue, nor, at Redis, unacknowledged or delayed."""
        queues = [self.settings.broker_name(name) for name in ("plan", "exec")]
        rabbit = self.settings.need_broker_url().startswith("amqp")
        eventually(
            lambda: (
                not (count_messages(self.settings, queues) if rabbit else self.harness.leftovers())
            ),
            "no message is left",
            why=lambda: self.worker.log[-3000:],
        )

    def await_seen(self, job: JobHandle) -> None:
        """Wait until a worker has taken the message of an ended job, and ended it."""
        eventually(
            lambda: "kept" not in job.record().fields,
            "its message was seen",
            why=lambda: f"{job.record().fields} {self.worker.log[-3000:]}",
        )


@contextmanager
def working(
    broker: str, servers: Servers, database: Engine, folder: Path, *options: str
) -> Iterator[Scene]:
    url = servers.valkey_url()
    at = url if broker == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at)
    worker = Worker(settings, folder, queues=("plan", "exec"), options=options)
    with worker.start(), relaying(settings, database):
        made = Scene(settings, worker, database)
        yield made
        made.harness.close()
