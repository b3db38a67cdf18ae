"""Where the broker is RabbitMQ: what a client could not publish, and what nobody can see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.rabbitmq import take_letters
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import Taskyard
from taskyard.deadletters import LetterBox, build_letter
from taskyard.errors import PublishFailed
from taskyard.jobs.retry_policy import Category
from taskyard.jobs.states import State
from taskyard.reconcile import Kind, Reconciler
from taskyard.records import Fleet, Member
from taskyard.runner.stored_decision import death_of, plain_failure
from taskyard.wire import Stamp
from taskyard.wire.letter_envelope import RawMessage


@pytest.fixture
def yard(servers: Servers) -> Iterator[Taskyard]:
    settings = fresh_settings(servers.valkey_url(), broker_url=servers.rabbitmq_url())
    with Taskyard(settings, catalogue()) as made:
        yield made


@pytest.fixture
def reconciler(yard: Taskyard, empty_database: Engine) -> Iterator[Reconciler]:
    made = Reconciler(yard.settings, empty_database, yard.records, yard.publisher, grace_s=0)
    yield made
    made.close()


def fetch(yard: Taskyard, queue: str) -> list[Any]:
    """All messages of a queue."""
    with connection(yard.settings) as opened:
        channel = opened.default_channel
        name = yard.settings.broker_name(queue)
        return list(iter(lambda: channel.basic_get(name, no_ack=True), None))


def test_a_job_whose_publication_failed_is_published_from_its_record_and_only_once(
    yard: Taskyard, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(messages: Sequence[object]) -> list[PublishFailed]:
        return [PublishFailed("the broker is away") for _ in messages]

    with monkeypatch.context() as patch:
        patch.setattr(yard.publisher, "publish_many", fail)
        with pytest.raises(PublishFailed):
            yard.enqueue("exec_act", {"do": "return"}, idempotency_key="k")
    assert reconciler.run().drift[Kind.UNPUBLISHED] == 1
    assert reconciler.run(repair=True).repaired[Kind.UNPUBLISHED] == 1
    assert reconciler.run(repair=True).drift[Kind.UNPUBLISHED] == 0
    again = yard.enqueue("exec_act", {"do": "return"}, idempotency_key="k")
    (message,) = fetch(yard, "exec")
    assert not again.created
    assert message.headers["id"] == again.job_id
    assert message.headers["taskyard"]["epoch"] == again.record().epoch
    assert json.loads(message.body)[0] == [{"do": "return"}]


def test_the_record_keeps_no_copy_of_what_the_broker_has_confirmed(yard: Taskyard) -> None:
    job = yard.enqueue("exec_act", {"do": "return"})
    assert job.state() is State.ACCEPTED
    assert "unsent" not in job.record().fields
    assert job.record().fields["published"] == "1"


def test_what_cannot_be_seen_is_suspected_and_never_counted_as_drift(
    yard: Taskyard, reconciler: Reconciler
) -> None:
    job = yard.enqueue("exec_act", {"do": "return"})
    key = yard.records.keys.record(job.job_id)
    yard.records.client.hset(key, mapping={"state": "retrying", "seq": 1, "due": 1})
    report = reconciler.run(repair=True)
    assert report.drift[Kind.STRANDED_RETRYING] == 0
    assert report.suspected == {"stranded_retrying": 1}
    assert "RabbitMQ's queues cannot be searched" in report.unseen[0]


def begin(yard: Taskyard, worker: str) -> str:
    """A job that `worker` has begun, with a lease that ended a second ago."""
    job = yard.enqueue("exec_act", {"do": "return"})
    record = job.record()
    yard.records.attempts.begin(
        job.job_id,
        Stamp(record.epoch),
        holder="delivery",
        worker=worker,
        job_type="exec_act",
        queue="exec",
    )
    until_us = yard.records.now_us() - 1_000_000
    yard.records.client.hset(yard.records.keys.record(job.job_id), "lease_until", until_us)
    return job.job_id


@pytest.fixture
def fleet(yard: Taskyard) -> Fleet:
    return Fleet(yard.records.client, yard.settings.namespace)


def test_what_a_dead_worker_had_begun_is_named_without_a_grace_time(
    yard: Taskyard, reconciler: Reconciler, fleet: Fleet
) -> None:
    patient = Reconciler(yard.settings, reconciler._engine, yard.records, yard.publisher)
    jobs = sorted(begin(yard, "gone@host") for _ in range(2))
    report = patient.run(repair=True)
    assert sorted(report.examples[Kind.BEGUN_BY_DEAD_WORKER]) == jobs
    assert report.suspected == {}
    assert report.repaired[Kind.BEGUN_BY_DEAD_WORKER] == 0
    queue = yard.settings.broker_name("exec")
    detail = report.details[jobs[0]]
    assert detail.startswith("its lease expired at 20")
    assert detail.endswith(
        f"its worker gone@host is dead; no worker consumes queue {queue}: start one"
    )
    fleet.join(Member("new@host", queues=(queue,)), 0)
    detail = patient.run().details[jobs[0]]
    assert detail.endswith(f"RabbitMQ gives its message to one of the 1 that consume queue {queue}")
    patient.close()


def test_what_a_living_worker_had_begun_is_suspected_and_its_successor_does_not_count(
    yard: Taskyard, reconciler: Reconciler, fleet: Fleet
) -> None:
    fleet.join(Member("busy@host"), 60)
    begin(yard, "busy@host")
    report = reconciler.run()
    assert report.drift[Kind.BEGUN_BY_DEAD_WORKER] == 0
    assert report.suspected == {"stranded_running": 1}
    # One of the same name that started after the attempt began.
    left = begin(yard, "again@host")
    fleet.join(Member("again@host"), 0)
    assert reconciler.run().examples[Kind.BEGUN_BY_DEAD_WORKER] == [left]


def dead_letter(yard: Taskyard, job_type: str = "exec_act") -> None:
    """A job that dies of its message, as a worker that has no handler for it lets it."""
    job = yard.enqueue(job_type, {"do": "return"})
    outcome = plain_failure(Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", "no handler")
    yard.records.attempts.dead_letter(
        job.job_id,
        None,
        job_type=job_type,
        queue="exec",
        **death_of(outcome),
    )
    box = LetterBox(yard.settings)
    box.post(build_letter(job.record(), RawMessage(body=b"[[], {}, {}]")))
    box.close()


def test_a_letter_that_waits_for_a_mirror_is_suspected_and_not_published_again(
    yard: Taskyard, reconciler: Reconciler
) -> None:
    dead_letter(yard)
    for _ in range(2):
        report = reconciler.run(repair=True)
        assert report.drift[Kind.LETTER_MISSING] == 0
        assert report.suspected == {"letter_missing": 1}
        assert "Make sure that the mirror runs" in report.unseen[0]
    assert len(take_letters(yard.settings)) == 1
    assert reconciler.run(repair=True).repaired[Kind.LETTER_MISSING] == 1
    assert len(take_letters(yard.settings)) == 1
