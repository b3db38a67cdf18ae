"""Jobs of installed apps, whose queues no setting names: counted where they are, or not judged."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from support.letters import died, make_delivery, make_message
from support.yard import list_key
from taskyard.access import Identity, Role
from taskyard.broker.redis_keys import Layout
from taskyard.control import replay
from taskyard.engine.retry_message import NextMessage
from taskyard.gate import Gate
from taskyard.install import AnnouncedQueue, AnnouncedQueues, AnyQueuePublisher
from taskyard.install.announced_queues import broker_mark
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.mirror.store_letters import store_letters
from taskyard.reconcile import Kind, Reconciler, Report
from taskyard.records import Records, Run
from taskyard.relay import Relay
from taskyard.settings import Settings

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

AGO_US = 3_600_000_000
OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)


class Shop:
    """Records of an app's jobs; `queue` is its own, and its keys have a prefix."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.publisher = AnyQueuePublisher(settings, self.records)
        self.reconciler = Reconciler(settings, database, self.records, self.publisher)
        self.queue = f"{settings.namespace}.orders"
        self.layout = Layout.of({"global_keyprefix": f"{settings.namespace}/", "sep": "~"})

    def announce(self, mark: str | None = None) -> None:
        mark = broker_mark(self.client, self.settings.namespace) if mark is None else mark
        place = AnnouncedQueue(self.queue, mark, self.layout, self.records.now_us())
        AnnouncedQueues(self.client, self.settings.namespace).report([place])

    def run(self, queue: str | None = None) -> tuple[str, Run]:
        """A job that a worker began."""
        job = str(uuid.uuid4())
        answer = self.records.attempts.begin(
            job,
            None,
            holder="h",
            worker="w",
            job_type="shop.pay",
            queue=self.queue if queue is None else queue,
        )
        assert isinstance(answer, Run)
        return job, answer

    def finish(self, job: str, run: Run, **facts: Any) -> None:
        self.records.attempts.finish(
            job,
            Decision.RETRYING,
            epoch=run.epoch,
            generation=run.generation,
            seq=run.seq,
            token=run.token,
            **facts,
        )

    def age(self, job: str, **fields: Any) -> None:
        """Let everything that the record notes be an hour ago."""
        key = self.records.keys.record(job)
        times = ("admitted", "started", "decided", "lease_until", "due")
        known = zip(times, self.client.hmget(key, times), strict=True)
        past = {name: int(value) - AGO_US for name, value in known if value}
        self.client.hset(key, mapping=past | fields)

    def stranded(self) -> str:
        """A job whose worker is gone."""
        job, _ = self.run()
        self.age(job)
        return job

    def look(self) -> Report:
        return self.reconciler.run(repair=True)


@pytest.fixture
def shop(settings: Settings, empty_database: Engine) -> Iterator[Shop]:
    made = Shop(settings, empty_database)
    yield made
    made.reconciler.close()
    made.publisher.close()
    for key in made.client.scan_iter(f"*{settings.namespace}*", count=1000):
        made.client.delete(key)
    made.client.close()


def stranded(report: Report) -> dict[str, int]:
    return {kind.value: n for kind, n in report.drift.items() if kind.startswith("stranded")}


@pytest.mark.parametrize("place", ["queue", "least urgent", "unacked"])
def test_a_message_in_an_apps_own_place_keeps_its_job_from_being_stranded(
    shop: Shop, place: str
) -> None:
    shop.announce()
    job = shop.stranded()
    message = json.dumps({"headers": {"id": job}, "properties": {}})
    match place:
        case "queue":
            shop.client.lpush(shop.layout.key(shop.queue, 0), message)
        case "least urgent":
            shop.client.lpush(shop.layout.key(shop.queue, 9), message)
        case "unacked":
            shop.client.hset(shop.layout.unacked_key, "t", f'[{message}, "", "{shop.queue}"]')
            shop.client.zadd(f"{shop.settings.namespace}/unacked_index", {"t": time.time()})
    report = shop.look()
    assert (stranded(report), report.suspected) == ({}, {})
    assert report.looked_at["messages"] == 1


def test_an_announced_queue_without_the_message_is_drift(shop: Shop) -> None:
    shop.announce()
    job = shop.stranded()
    report = shop.look()
    assert stranded(report) == {"stranded_running": 1}
    assert report.examples[Kind.STRANDED_RUNNING] == [job]


def test_in_a_queue_that_nobody_named_a_job_is_suspected_and_it_says_why(shop: Shop) -> None:
    shop.stranded()
    report = shop.look()
    assert (stranded(report), report.suspected) == ({}, {"stranded_running": 1})
    (why,) = report.unseen
    assert why.startswith(f"queue '{shop.queue}': neither the settings nor a worker")


def test_a_message_that_is_found_in_a_queue_nobody_named_is_no_suspicion(shop: Shop) -> None:
    job = shop.stranded()
    shop.client.lpush(shop.queue, json.dumps({"headers": {"id": job}, "properties": {}}))
    report = shop.look()
    assert (stranded(report), report.suspected, report.unseen) == ({}, {}, [])


def test_at_another_broker_a_job_is_suspected_and_it_says_why(shop: Shop) -> None:
    shop.announce(mark="of another broker")
    shop.stranded()
    report = shop.look()
    assert (stranded(report), report.suspected) == ({}, {"stranded_running": 1})
    assert report.unseen == [f"queue '{shop.queue}' is at another broker than TASKYARD_BROKER_URL"]


def test_a_replayed_job_in_a_queue_that_nobody_named_is_not_published_again(shop: Shop) -> None:
    letter = died(shop.records)
    with shop.database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    replay(shop.database, letter.letter_id, identity=OPS, reason="The broker is back again")
    gate = Gate(shop.settings.namespace, shop.client)
    relay = Relay(shop.settings, shop.database, shop.records, shop.publisher, gate)
    assert relay.run_once()
    shop.client.delete(*shop.client.scan_iter(f"{list_key(shop.settings, 'plan')}*"))
    shop.age(letter.job_id, queue=shop.queue)
    report = shop.look()
    assert report.repaired[Kind.UNPUBLISHED] + report.repaired[Kind.STRANDED_ACCEPTED] == 0
    assert report.suspected == {"stranded_accepted": 1}
    assert not shop.client.exists(shop.queue)


def test_a_retry_into_another_queue_is_looked_for_there(shop: Shop) -> None:
    shop.announce()
    job, run = shop.run()
    other = f"{shop.settings.namespace}.slow"
    kept = NextMessage(queue=other, message=make_message(job))
    shop.finish(job, run, delay_s=0, cause=kept.encode(), code="retry", message="later")
    shop.age(job)
    assert shop.look().suspected == {"stranded_retrying": 1}
    shop.client.lpush(other, json.dumps({"headers": {"id": job}, "properties": {}}))
    report = shop.look()
    assert (stranded(report), report.suspected) == ({}, {})


def test_a_replaced_job_waits_for_its_replacement_without_a_message(shop: Shop) -> None:
    shop.announce()
    job, run = shop.run()
    shop.finish(job, run, code="replaced", message="replaced by shop.ship")
    shop.age(job)
    report = shop.look()
    assert (stranded(report), report.suspected) == ({}, {"stranded_retrying": 1})
    assert "their jobs continue after the tasks that replace them" in report.unseen[0]
