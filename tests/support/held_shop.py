"""What workers of an app hold, and who of them lives, made without any worker."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import redis

from taskyard.broker import Layout
from taskyard.install import AnnouncedQueue, AnnouncedQueues
from taskyard.install.announced_queues import broker_mark
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.records import Fleet, Member, Records, Run, UnadmittedJob
from taskyard.settings import Settings
from taskyard.transport.owner_descriptions import describe

__all__ = ["OWNER", "HeldShop"]

OWNER = "host.1.abc"


class HeldShop:
    """An app with keys of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.queue = f"{settings.namespace}.orders"
        self.layout = Layout.of({"global_keyprefix": f"{settings.namespace}/", "sep": "~"})
        mark = broker_mark(self.client, settings.namespace)
        place = AnnouncedQueue(self.queue, mark, self.layout, self.records.now_us())
        AnnouncedQueues(self.client, settings.namespace).report([place])

    def begin(
        self, worker: str = "shop@dead", expired_s: float = 5, queue: str | None = None
    ) -> str:
        """A job that a worker began, whose lease expired so many seconds ago."""
        job = str(uuid.uuid4())
        answer = self.records.attempts.begin(
            job,
            None,
            holder="h",
            worker=worker,
            job_type="shop.pay",
            queue=queue or self.queue,
        )
        assert isinstance(answer, Run)
        until = self.records.now_us() - int(expired_s * 1e6)
        self.client.hset(self.records.keys.record(job), "lease_until", until)
        return job

    def finish(self, job: str, decision: Decision) -> None:
        record = self.records.read(job)
        token = record.number("token")
        self.records.attempts.finish(
            job, decision, epoch=record.epoch, generation=0, seq=0, token=token
        )

    def admit(self) -> str:
        job = str(uuid.uuid4())
        self.records.record_publications(
            [UnadmittedJob(job, "shop.pay", self.queue)], published=True
        )
        return job

    def hold(self, job: str, tag: str = f"{OWNER}:0", taken_s: float = 30) -> None:
        """Have its message out since so many seconds."""
        message = {"headers": {"id": job}, "properties": {"priority": 4}}
        stored = json.dumps([message, "", self.queue])
        self.client.hset(self.layout.unacked_key, tag, stored)
        self.client.zadd(self.layout.index_key, {tag: time.time() - taken_s})

    def queued(self, job: str) -> None:
        """Have its message wait in its queue."""
        message = {"headers": {"id": job}, "properties": {"priority": 4}}
        self.client.lpush(self.layout.key(self.queue, 3), json.dumps(message))

    def delayed(self, job: str) -> None:
        """Have its message wait in the delay store."""
        message = {"headers": {"id": job}, "properties": {"priority": 4}}
        entry = f"{self.queue}\n{json.dumps(message)}"
        self.client.hset(f"{self.settings.namespace}:delayed:messages", f"{job}:0:0", entry)

    def owner(self, name: str = OWNER, silent_s: float = 60) -> None:
        keys = self.layout.unacked_key, self.layout.index_key
        steps = self.layout.steps
        beat = describe(*keys, self.layout.separator, steps, [self.queue])
        seen_us = self.records.now_us() - int(silent_s * 1e6)
        key = f"{self.layout.prefix}{self.settings.namespace}:heartbeats"
        self.client.hset(key, name, f"{seen_us} {beat}")

    def member(
        self, worker: str, silent_s: float = 0, started_s: float = 3600, **facts: Any
    ) -> None:
        keys = {"unacked": self.layout.unacked_key, "index": self.layout.index_key}
        fleet = Fleet(self.client, self.settings.namespace)
        given = {"visibility_timeout_s": 600.0, **keys, **facts}
        joined = fleet.join(Member(worker, **given), started_s=started_s)
        us, _, description = self.client.hget(fleet.key, joined.instance).partition(b" ")
        beat = str(int(us) - int(silent_s * 1e6)).encode() + b" " + description
        self.client.hset(fleet.key, joined.instance, beat)

    def close(self) -> None:
        for key in self.client.scan_iter(f"*{self.settings.namespace}*", count=1000):
            self.client.delete(key)
        self.client.close()
