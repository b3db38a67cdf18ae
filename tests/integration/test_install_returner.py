"""What a dead worker began by kombu's transport comes back by its record, and nothing else does."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from servers import Servers
from support.legacy_fixtures import legacy_on
from support.post import Post
from support.waiting import SOON_S
from support.yard import fresh_settings
from taskyard.install import install
from taskyard.install.installed_context import InstalledContext
from taskyard.install.requeue_begun_jobs import late_s, return_abandoned
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.records import GONE_S, Fleet, Member, Run
from taskyard.transport import give_back
from taskyard.wire import Stamp


class Shop:
    """An app over kombu's transport, in this process, with what its workers hold."""

    def __init__(self, url: str) -> None:
        self.settings = fresh_settings(url)
        self.name = self.settings.namespace
        self.redis = redis.Redis.from_url(url)
        self.app = Celery("shop", broker=url, set_as_current=False)
        self.app.conf.broker_transport_options = {
            "unacked_key": f"{self.name}:out",
            "unacked_index_key": f"{self.name}:index",
            "priority_steps": [0, 5],
            "sep": "~",
        }
        tasks = {"shop.watched": "observe"}
        install(self.app, settings=self.settings, transport=False, tasks=tasks)
        self.yard: InstalledContext = self.app.taskyard
        self.queue = f"{self.name}.orders"

    def begin(self, worker: str = "shop@dead", expired_s: float | None = None) -> str:
        """A job that a worker began, whose lease expired so many seconds ago."""
        job = str(uuid.uuid4())
        answer = self.yard.records.attempts.begin(
            job,
            None,
            holder="h",
            worker=worker,
            job_type="shop.pay",
            queue=self.queue,
        )
        assert isinstance(answer, Run)
        late = late_s(self.settings) + 5 if expired_s is None else expired_s
        until = self.yard.records.now_us() - int(late * 1e6)
        self.redis.hset(f"{self.name}:job:{job}", "lease_until", until)
        return job

    def hold(self, job: str, tag: str = "", task: str = "shop.pay", **headers: Any) -> None:
        """Have its message out, as kombu notes it."""
        tag = tag or str(uuid.uuid4())
        message = {
            "body": "e30=",
            "headers": {"id": job, "task": task, **headers},
            "properties": {"delivery_info": {}, "delivery_tag": tag, "priority": 7},
        }
        self.redis.hset(f"{self.name}:out", tag, json.dumps([message, "", self.queue]))
        self.redis.zadd(f"{self.name}:index", {tag: 1.0})

    def back(self) -> list[dict[str, Any]]:
        """What a look brings back, as it lies in its list."""
        self.redis.delete(*self.redis.keys(f"{self.name}:returning:*") or ["none"])
        return_abandoned(self.yard)
        return [json.loads(raw) for raw in self.redis.lrange(f"{self.queue}~5", 0, -1)]

    def complete(self, job: str) -> None:
        record = self.yard.records.read(job)
        token = record.number("token")
        self.yard.records.attempts.finish(
            job, Decision.COMPLETED, epoch=record.epoch, generation=0, seq=0, token=token
        )

    def join(self, member: Member, *, started_s: float = 0, silent_s: float = 0) -> None:
        fleet = Fleet(self.redis, self.name)
        joined = fleet.join(member, started_s)
        us, _, text = self.redis.hget(fleet.key, joined.instance).partition(b" ")
        beat = str(int(us) - int(silent_s * 1e6)).encode() + b" " + text
        self.redis.hset(fleet.key, joined.instance, beat)

    def close(self) -> None:
        self.app.close()
        for key in self.redis.scan_iter(f"*{self.name}*", count=1000):
            self.redis.delete(key)
        self.redis.close()


@pytest.fixture
def shop(servers: Servers) -> Iterator[Shop]:
    made = Shop(servers.valkey_url())
    yield made
    made.close()


def test_what_a_dead_worker_began_is_the_next_of_its_list_under_another_tag(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job, tag="t")
    (message,) = shop.back()
    assert message["headers"] == {"id": job, "task": "shop.pay", "redelivered": True}
    assert message["properties"]["delivery_tag"] != "t"
    assert not shop.redis.exists(f"{shop.name}:out", f"{shop.name}:index")


def test_a_successor_of_the_same_name_is_not_the_worker_that_began_it(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.join(Member("shop@dead"))
    assert len(shop.back()) == 1


@pytest.mark.parametrize("decided", [False, True])
def test_what_a_dead_worker_said_it_held_comes_back_though_it_has_not_begun(
    shop: Shop, decided: bool
) -> None:
    """A decided one too: what its decision obliges to may not have been published."""
    job = shop.begin() if decided else str(uuid.uuid4())
    if decided:
        shop.complete(job)
    shop.hold(job, tag="t")
    assert shop.back() == []
    shop.join(Member("shop@dead", held=("t",)), silent_s=GONE_S + 1)
    assert len(shop.back()) == 1


def test_what_a_living_worker_says_it_holds_stays(shop: Shop) -> None:
    shop.hold(str(uuid.uuid4()), tag="t")
    shop.join(Member("shop@dead", held=("t",)), silent_s=GONE_S + 1)
    shop.join(Member("shop@alive", held=("t",)))
    assert shop.back() == []


def test_what_another_worker_runs_meanwhile_stays(shop: Shop) -> None:
    shop.join(Member("shop@alive"), started_s=60)
    job = shop.begin("shop@alive", expired_s=-20)
    shop.hold(job, tag="t")
    shop.join(Member("shop@dead", held=("t",)), silent_s=GONE_S + 1)
    assert shop.back() == []


def test_what_a_living_worker_holds_stays_however_long_its_lease_is_over(shop: Shop) -> None:
    shop.join(Member("shop@alive"), started_s=60)
    shop.hold(shop.begin("shop@alive", 3000))
    assert shop.back() == []


def test_a_lease_that_is_hardly_over_may_still_be_renewed(shop: Shop) -> None:
    shop.hold(shop.begin(expired_s=-5))
    shop.hold(shop.begin(expired_s=late_s(shop.settings) / 2))
    assert shop.back() == []


def test_a_job_that_is_decided_or_unknown_is_none_that_somebody_runs(shop: Shop) -> None:
    decided, unknown = shop.begin(), str(uuid.uuid4())
    shop.complete(decided)
    for job in (decided, unknown):
        shop.hold(job)
    assert shop.back() == []


def test_a_task_that_is_only_watched_waits_as_it_would_without_taskyard(shop: Shop) -> None:
    shop.hold(shop.begin(), task="shop.watched")
    assert shop.back() == []


def test_what_our_transport_holds_is_for_its_sweeps(shop: Shop) -> None:
    shop.hold(shop.begin(), tag="host.1.abc:0")
    assert shop.back() == []


def test_a_message_of_an_earlier_attempt_stays(shop: Shop) -> None:
    job = shop.begin()
    earlier = Stamp(shop.yard.records.read(job).epoch - 1)
    shop.hold(job, taskyard=earlier.header())
    assert shop.back() == []


def test_what_is_no_message_harms_nothing(shop: Shop) -> None:
    shop.redis.hset(f"{shop.name}:out", "junk", '["junk", "", "q"]')
    shop.redis.zadd(f"{shop.name}:index", {"junk": 1.0, "nothing": 1.0})
    shop.hold(shop.begin())
    assert len(shop.back()) == 1


def test_one_worker_of_a_fleet_looks_at_a_time(shop: Shop) -> None:
    shop.hold(shop.begin())
    assert return_abandoned(shop.yard) == 1
    shop.hold(shop.begin())
    assert return_abandoned(shop.yard) == 0


def test_the_late_acknowledgement_of_one_that_was_not_dead_removes_nothing(
    servers: Servers,
) -> None:
    """kombu acknowledges by the tag in the message, so the next consumer must get another one."""
    post = Post(servers.valkey_url())
    try:
        post.send("once")
        with post.taking(stock=True, prefetch_count=1) as first:
            first.await_count(1)
            ((tag, stored),) = post.unacked().items()
            keys = post.options["unacked_key"], post.options["unacked_index_key"]
            assert give_back(post.redis, *keys, tag.decode(), stored, post.queue())
            assert not give_back(post.redis, *keys, tag.decode(), stored, post.queue())
            with post.taking(stock=True) as second:
                second.await_count(1)
                first.messages[0].ack()
                assert len(post.unacked()) == 1
    finally:
        post.close()


@pytest.mark.slow  # a worker counts as gone after 15 s
def test_a_job_of_a_killed_worker_does_not_wait_for_the_visibility_timeout(
    servers: Servers, tmp_path: Path
) -> None:
    with legacy_on("redis by kombu", servers, tmp_path, lease_s=3) as legacy:
        legacy.options = {"visibility_timeout": 3600}
        killed = legacy.worker("shop")
        with legacy.producer() as tasks:
            gate = f"g-{legacy.prefix}"
            begun = [tasks.gated.delay(gate) for _ in range(2)]
            for result in begun:
                legacy.await_notes(f"{result.id}:runs", 1)
            killed.kill()
            legacy.open_gate(gate, 4)
            legacy.worker("shop")
            assert [result.get(timeout=SOON_S) for result in begun] == [2, 2]
        assert "the worker that held its message is dead" in legacy.logs()
