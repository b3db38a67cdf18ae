"""A queue with jobs and messages of every kind, an operator who purges it, and a relay."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, func, select, update

from servers import Servers
from support.rabbitmq import count_messages
from support.yard import STEPS, ServerHarness, fresh_settings, list_key
from taskyard.access import Action, Identity, Role
from taskyard.audit import rows_of
from taskyard.broker import connection
from taskyard.client import EnqueueRequest, JobHandle
from taskyard.control import Control, PurgeOutcome
from taskyard.database.tables import AUDIT, OUTBOX
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.relay import Relay
from taskyard.settings import Settings

__all__ = ["ADMIN", "BROKERS", "WHY", "Crash", "PurgeScene", "purging"]

ADMIN = Identity("ada@example.com", via="token", role=Role.ADMIN)
WHY = "The campaign was called off, ticket 88121"
BROKERS = ("redis", "rabbitmq")


class Crash(BaseException):
    """The process dies here."""


class PurgeScene:
    """Native jobs without a worker; the test is the worker."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.harness = ServerHarness(settings)
        self.records = self.harness.yard.records
        self.control = Control(database, self.records, ADMIN)
        self.rabbit = settings.need_broker_url().startswith("amqp")
        with database.connect() as connection:
            # No test can delete the audit rows of others.
            self._before = connection.scalar(select(func.max(AUDIT.c.id))) or 0

    def purge(self, queue: str = "exec", **options: Any) -> PurgeOutcome:
        return self.control.purge_queue(queue, reason=WHY, **options)

    def enqueue(self, count: int, **options: Any) -> list[JobHandle]:
        return [self.harness.act(**options) for _ in range(count)]

    def enqueue_many(self, count: int) -> list[JobHandle]:
        requests = [
            EnqueueRequest(job_type="exec_act", payload={"do": "return"}) for _ in range(count)
        ]
        return self.harness.yard.enqueue_many(requests)

    def depth(self, queue: str = "exec") -> int:
        """What a scaler of workers reads: the lengths of all lists, or the ready messages."""
        if self.rabbit:
            return count_messages(self.settings, [self.settings.broker_name(queue)])
        key = list_key(self.settings, queue)
        return sum(self.harness.broker.llen(key + step) for step in STEPS)

    def send(self, headers: dict[str, Any] | None, body: bytes = b"[[], {}, {}]") -> None:
        """Publish a message of some other client; without headers it is no message of Celery."""
        name = self.settings.broker_name("exec")
        if self.rabbit:
            with connection(self.settings) as broker:
                channel = broker.default_channel
                facts = {"content_type": "application/json", "content_encoding": "utf-8"}
                message = channel.prepare_message(body, headers=headers or {}, **facts)
                channel.basic_publish_confirm(message, exchange="", routing_key=name)
            return
        document = {
            "body": body.decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": name},
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        raw = b"no message" if headers is None else json.dumps(document).encode()
        self.harness.broker.lpush(list_key(self.settings, "exec"), raw)

    def stamped(self, job: JobHandle, **changes: int) -> dict[str, Any]:
        """Headers of another message of a job, at its position or elsewhere."""
        record = job.record()
        place = {
            "epoch": record.epoch,
            "generation": record.generation,
            "seq": record.number("seq"),
            **changes,
        }
        return {"id": job.job_id, "task": "exec_act", "taskyard": {"v": 1, **place}}

    def take(self) -> int:
        """Remove every message of the queue without any effect, as if it had been lost."""
        taken = 0
        if self.rabbit:
            with connection(self.settings) as broker:
                channel, name = broker.default_channel, self.settings.broker_name("exec")
                while channel.basic_get(name, no_ack=True) is not None:
                    taken += 1
            return taken
        key = list_key(self.settings, "exec")
        taken = self.depth()
        self.harness.broker.delete(*(key + step for step in STEPS))
        return taken

    def rows(self, request_id: uuid.UUID) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return list(map(dict, rows_of(connection, request_id)))

    def purges(self) -> list[uuid.UUID]:
        """Every purge that was requested in this scene, oldest first."""
        with self.database.connect() as connection:
            query = select(AUDIT.c.request_id).where(AUDIT.c.id > self._before).order_by(AUDIT.c.id)
            query = query.where(AUDIT.c.action_type == Action.PURGE_QUEUE.value)
            return list(connection.scalars(query.where(AUDIT.c.outcome == "requested")))

    def rows_of_job(self, job_id: str) -> list[dict[str, Any]]:
        """Every row about a job, oldest first."""
        with self.database.connect() as connection:
            query = select(AUDIT).where(AUDIT.c.target_request_id == job_id).order_by(AUDIT.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def last_row(self) -> dict[str, Any]:
        with self.database.connect() as connection:
            query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(1)
            return dict(connection.execute(query).mappings().one())

    def open_intents(self) -> int:
        with self.database.connect() as connection:
            query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
            return int(connection.scalar(query) or 0)

    def relay_all(self) -> None:
        """Let a relay carry out everything, as if the time for each intent had come."""
        publisher = AnyQueuePublisher(self.settings, self.records)
        relay = self.relay(publisher)
        # The request of a purge is answered after those for its jobs.
        for _ in range(2):
            self.let_relays_act()
            while relay.run_once():
                pass
        publisher.close()

    def let_relays_act(self) -> None:
        """Make every intent due, as if the time for it had come."""
        with self.database.begin() as connection:
            connection.execute(update(OUTBOX).values(not_before=None))

    def relay(self, publisher: AnyQueuePublisher) -> Relay:
        """Return a relay, not running."""
        gate = Gate(self.settings.namespace, self.records.client)
        return Relay(self.settings, self.database, self.records, publisher, gate)

    def check_cancelled(self, job: JobHandle) -> None:
        """The job is cancelled once, and the audit log has a request and an answer of it."""
        assert job.state() is State.CANCELLED
        assert self.harness.event_names(job).count("cancel") == 1
        rows = self.rows_of_job(job.job_id)
        by_request: dict[uuid.UUID, list[str]] = {}
        for row in rows:
            assert row["action_type"] == Action.CANCEL_REQUEST
            by_request.setdefault(row["request_id"], []).append(row["outcome"])
        assert by_request, rows
        assert all(found == ["requested", "applied"] for found in by_request.values()), rows

    def close(self) -> None:
        self.harness.close()


@contextmanager
def purging(broker: str, servers: Servers, database: Engine, **fields: Any) -> Iterator[PurgeScene]:
    url = servers.valkey_url()
    at = url if broker == "redis" else servers.rabbitmq_url()
    made = PurgeScene(fresh_settings(url, broker_url=at, **fields), database)
    try:
        yield made
    finally:
        made.close()
