"""A worker of either kind on either broker, with two tasks, for what must hold on all four."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from servers import Servers
from support.legacy import Legacy
from support.legacy_broker import Broker, RabbitBroker, RedisBroker
from support.legacy_fixtures import legacy_on
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.broker import own_layout
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter

__all__ = ["GROUNDS", "Ground", "ground_on", "signature"]

GROUNDS: Final = ("native", "installed")


class Ground(ABC):
    """`same` returns its argument, `total` the sum of a list; neither retries.

    `mark` stands in the name of every queue of this ground, and of no other's.
    """

    same: str
    total: str
    queue: str
    mark: str
    at_broker: Broker
    redis: redis.Redis
    settings: Settings

    @property
    @abstractmethod
    def broker_queue(self) -> str:
        """Where messages of `queue` lie: its name at RabbitMQ, its list at Redis."""

    @abstractmethod
    def log(self) -> str:
        """The end of the worker's log."""

    @abstractmethod
    def stored(self, job_id: str) -> bytes | None:
        """What the result backend holds."""

    def send(
        self,
        task: str,
        args: list[Any],
        kwargs: dict[str, Any],
        embed: Any = None,
        job_id: str = "",
    ) -> str:
        """Put a message into the queue; the job's id."""
        known = job_id or str(uuid.uuid4())
        body = json.dumps([args, kwargs, embed or {}]).encode()
        self.at_broker.push(self.broker_queue, {"id": known, "task": task}, body)
        return known

    def record(self, job_id: str) -> dict[str, str]:
        """The record's fields."""
        raw = self.redis.hgetall(f"{self.settings.namespace}:job:{job_id}")
        return {name.decode(): value.decode("utf-8", "replace") for name, value in raw.items()}

    def events(self, job_id: str) -> list[str]:
        """The events of a job."""
        return [event for job, event in self.event_names() if job == job_id]

    def event_names(self) -> list[tuple[str, str]]:
        """Job and event of every entry in the lifecycle stream."""
        entries = self.redis.xrange(f"{self.settings.namespace}:lifecycle")
        return [(fields[b"job"].decode(), fields[b"event"].decode()) for _, fields in entries]

    def await_state(self, job_id: str, state: str) -> None:
        """Wait for a state, and for nothing else to be the end."""

        def found() -> str:
            return self.record(job_id).get("state", "")

        eventually(
            lambda: found() in (state, "dead_lettered"), f"job {job_id} {state}", why=self.log
        )
        assert found() == state, f"{self.record(job_id)}\n{self.log()}"

    def await_result(self, job_id: str) -> Any:
        """What Celery's client would get; a task stores it after its record is completed."""
        raw = eventually(lambda: self.stored(job_id), f"a result of {job_id}", why=self.log)
        return json.loads(raw)["result"]

    def await_empty(self) -> None:
        """Wait until no message waits or is held."""
        eventually(lambda: not self._left(), "no message left", why=self.log)

    def _left(self) -> int:
        held = [
            value
            for name in ("unacked", own_layout(self.settings).unacked_key)
            for value in self.redis.hvals(name)
            if self.mark.encode() in value
        ]
        return self.at_broker.queued(self.broker_queue) + self.at_broker.waiting() + len(held)

    def letters(self, job_id: str) -> list[Letter]:
        """The letters of a job."""
        return [letter for letter in self.at_broker.letters() if letter.job_id == job_id]


class _Native(Ground):
    """A worker of job types."""

    same, total, queue = "raw_act", "sum_act", "exec"

    def __init__(self, harness: ServerHarness, worker: Worker) -> None:
        self.harness, self.worker = harness, worker
        self.settings, self.redis = harness.settings, harness.redis
        self.mark = harness.settings.namespace
        rabbit = self.settings.need_broker_url().startswith("amqp")
        self.at_broker = RabbitBroker(self.settings) if rabbit else RedisBroker(self.settings)

    @property
    def broker_queue(self) -> str:
        if self.settings.need_broker_url().startswith("amqp"):
            return self.settings.broker_name(self.queue)
        return list_key(self.settings, self.queue)

    def log(self) -> str:
        return self.worker.log[-6000:]

    def stored(self, job_id: str) -> bytes | None:
        return self.redis.get(f"{self.settings.namespace}:celery-task-meta-{job_id}")


class _Installed(Ground):
    """A worker of an installed app."""

    same, total = "legacy.mark", "legacy.total"

    def __init__(self, app: Legacy) -> None:
        self.app, self.at_broker = app, app.at_broker
        self.settings, self.redis = app.settings, app.redis
        self.queue, self.mark = f"{app.prefix}.work", app.prefix

    @property
    def broker_queue(self) -> str:
        return self.queue

    def log(self) -> str:
        return self.app.logs()

    def stored(self, job_id: str) -> bytes | None:
        return self.redis.get(f"celery-task-meta-{job_id}")


@contextmanager
def ground_on(kind: str, broker: str, servers: Servers, folder: Path) -> Iterator[Ground]:
    """A ground of `GROUNDS` on a broker of `BROKERS`; records and results are in Valkey."""
    if kind == "installed":
        with legacy_on(broker, servers, folder) as app:
            app.worker()
            yield _Installed(app)
        return
    at = servers.valkey_url() if broker == "redis" else servers.rabbitmq_url()
    harness = ServerHarness(fresh_settings(servers.valkey_url(), broker_url=at))
    with Worker(harness.settings, folder, queues=("plan", "exec")) as worker:
        worker.start()
        yield _Native(harness, worker)
        harness.close()


def signature(task: str, *args: Any) -> dict[str, Any]:
    """A signature as Celery writes it."""
    return {
        "task": task,
        "args": list(args),
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
