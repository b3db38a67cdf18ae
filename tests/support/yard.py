"""A yard of its own for one test: settings, client, keys, and what its handlers did."""

from __future__ import annotations

import base64
import gc
import json
import uuid
from functools import cached_property
from typing import Any

import redis

from support import handlers
from support.waiting import eventually
from taskyard.broker import own_layout
from taskyard.client import JobHandle, Taskyard
from taskyard.deadletters import mirror_queue
from taskyard.jobs import Catalogue, registry
from taskyard.jobs.states import LIVE, State
from taskyard.settings import Settings

STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")

__all__ = ["ServerHarness", "catalogue", "fresh_settings", "letters_key", "list_key"]


def fresh_settings(redis_url: str, **fields: Any) -> Settings:
    """Settings with a new namespace; the built-in jobs are there unless `fields` say otherwise."""
    own = {"redis_url": redis_url, "broker_url": redis_url, "builtin_jobs": True}
    return Settings(**{"namespace": f"t{uuid.uuid4().hex[:10]}", **own, **fields})


def catalogue() -> Catalogue:
    """The built-in job types and those of the test handlers."""
    known = Catalogue.load(built_in=True)
    for handler in registry.handlers():
        if handler.job_type is not None:
            known = known.with_type(handler.job_type)
    return known


def list_key(settings: Settings, queue: str, step: int = 0) -> str:
    """The Redis list of a configured queue's messages of one step, as the broker has it."""
    return own_layout(settings).key(settings.broker_name(queue), step)


def letters_key(settings: Settings) -> str:
    """The Redis list of the letters that wait for the mirror."""
    return own_layout(settings).key(mirror_queue(settings).name, 0)


class ServerHarness:
    """The client's side of one test, with eyes for everything that lies in Redis."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.yard = Taskyard(settings, catalogue())
        self.redis = redis.Redis.from_url(settings.need_redis_url())
        at = settings.need_broker_url()
        # With RabbitMQ as the broker the tests ask that themselves.
        self.broker = redis.Redis.from_url(
            at if at.startswith("redis") else settings.need_redis_url()
        )
        self.notes = handlers.Notes(self.redis, settings.namespace)

    # -- jobs ----------------------------------------------------------------------------------

    def act(self, do: str = "return", job_type: str = "exec_act", **options: Any) -> JobHandle:
        """Enqueue one act of the test handlers; `times`, `value` and `gate` go into its payload."""
        names = ("times", "value", "gate", "code", "label")
        payload = {"do": do} | {name: options.pop(name) for name in names if name in options}
        return self.yard.enqueue(job_type, payload, **options)

    def await_state(self, job: JobHandle, *states: State) -> State:
        """Wait until `job` is in one of `states`."""
        wanted = f"job {job.job_id} in {states}"
        eventually(lambda: job.state() in states, wanted, why=lambda: str(job.record().fields))
        return job.state()

    def await_end(self, job: JobHandle) -> State:
        """Wait until nothing but an operator could move `job`."""
        ends = set(State) - (LIVE - {State.DEAD_LETTERED}) - {State.NONE}
        return self.await_state(job, *ends)

    def runs(self, job: JobHandle | str) -> int:
        """How often the handler of a job started."""
        return self.notes.runs(job if isinstance(job, str) else job.job_id)

    def open_gate(self, name: str) -> None:
        """Let the acts that wait at a gate go on."""
        self.notes.open_gate(name)

    # -- what lies in Redis --------------------------------------------------------------------

    @cached_property
    def queue_keys(self) -> list[str]:
        """Every list of every work queue, most urgent step first."""
        names = [list_key(self.settings, name) for name in self.settings.queues]
        return [name + step for name in names for step in STEPS]

    def queued(self) -> int:
        """Messages in all work queues."""
        return sum(self.broker.llen(key) for key in self.queue_keys)

    def unacked(self) -> int:
        """Messages that a worker holds."""
        return int(self.broker.hlen(f"{self.settings.namespace}:unacked"))

    def delayed(self) -> int:
        """Messages that wait in the delay store."""
        return self.yard.publisher.delay_store.waiting()

    def leftovers(self) -> dict[str, int]:
        """What still lies anywhere, by place; empty when all is done."""
        places = {"queued": self.queued(), "unacked": self.unacked(), "delayed": self.delayed()}
        places["unacked_index"] = self.broker.zcard(f"{self.settings.namespace}:unacked_index")
        places["messages"] = self.broker.hlen(f"{self.settings.namespace}:delayed:messages")
        return {name: count for name, count in places.items() if count}

    def await_quiet(self) -> None:
        """Wait until no message lies anywhere."""
        eventually(lambda: not self.leftovers(), "nothing left", why=lambda: str(self.leftovers()))

    def letters(self) -> list[dict[str, Any]]:
        """The letters that wait for the mirror."""
        key = letters_key(self.settings)
        found = [json.loads(raw) for raw in self.broker.lrange(key, 0, -1)]
        return [json.loads(_body(message)) for message in found]

    def letters_of(self, job: JobHandle | str) -> list[dict[str, Any]]:
        """The letters of one job."""
        job_id = job if isinstance(job, str) else job.job_id
        return [letter for letter in self.letters() if letter["job_id"] == job_id]

    def events(self, job: JobHandle | str | None = None) -> list[dict[str, str]]:
        """The lifecycle stream, of one job or of all."""
        job_id = job.job_id if isinstance(job, JobHandle) else job
        entries = self.redis.xrange(f"{self.settings.namespace}:lifecycle")
        found = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]
        return [event for event in found if job_id is None or event.get("job") == job_id]

    def event_names(self, job: JobHandle | str) -> list[str]:
        """The names of a job's events, in order; fails unless its versions are complete."""
        events = self.events(job)
        assert [int(event["version"]) for event in events] == list(range(1, len(events) + 1))
        return [event["event"] for event in events]

    def close(self) -> None:
        """Let the connections go, and leave nothing in the shared server."""
        self._close_client()
        for client in (self.redis, self.broker):
            keys = list(client.scan_iter(f"*{self.settings.namespace}*", count=1000))
            if keys:
                client.delete(*keys)
            client.close()

    def close_connections(self) -> None:
        """Let the connections go; others in the namespace go on."""
        self._close_client()
        self.redis.close()
        self.broker.close()

    def _close_client(self) -> None:
        # Celery's results unsubscribe when they are collected, which needs the server.
        gc.collect()
        self.yard.close()


def _body(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message["body"])
