"""Replies to services whose jobs an operator has ended: one a request, and a repeat is alike."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update

from servers import Servers
from support.rabbitmq import memory_alarm
from support.reply_queue import ReplyQueue, declared
from support.waiting import eventually
from support.yard import ServerHarness, fresh_settings
from taskyard import outbox
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.broker import RedisPublisher
from taskyard.client import EnqueueRequest, JobHandle
from taskyard.control import Control, VerbOutcome
from taskyard.database.tables import OUTBOX
from taskyard.errors import PublishFailed
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Run, StopAnswer
from taskyard.relay import Relay

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Duplicate of request 88121, confirmed with the tenant"
DONE = "User query answered via direct email"
BROKERS = ("redis", "rabbitmq")


class Crash(BaseException):
    """The process dies here."""


class Scene:
    """A service, its queue for replies, an operator and a relay; the test is the worker."""

    def __init__(self, harness: ServerHarness, database: Engine, replies: ReplyQueue) -> None:
        self.harness, self.database, self.replies = harness, database, replies
        self.yard, self.settings = harness.yard, harness.settings
        self.records = self.yard.records
        self.publisher = AnyQueuePublisher(self.settings, self.records)
        gate = Gate(self.settings.namespace, self.records.client)
        self.relay = Relay(self.settings, database, self.records, self.publisher, gate)
        self.control = Control(database, self.records, OPS, wait_s=0)

    def enqueue(self, **options: Any) -> JobHandle:
        return self.harness.act(**{"reply_to": self.replies.name, **options})

    def running(self) -> tuple[JobHandle, Run]:
        job = self.enqueue()
        answer = self.records.attempts.begin(
            job.job_id, None, holder="h", worker="w@host", process="1", job_type="exec_act",
            queue="exec",
        )  # fmt: skip
        assert isinstance(answer, Run)
        return job, answer

    def finish(self, job: JobHandle, run: Run, decision: Decision, **more: Any) -> None:
        place: dict[str, Any] = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq}
        facts = {"token": run.token, "result": b"{}", "cause": b"{}", "message": "broken", **more}
        self.records.attempts.finish(job.job_id, decision, **place, **facts)

    def act(self, verb: str, job: JobHandle) -> VerbOutcome:
        """Ask for a verb and let the relay look once."""
        own = {"summary": DONE, "result": {"sent": 1}} if verb == "complete" else {}
        outcome: VerbOutcome = getattr(self.control, verb)(job.job_id, reason=WHY, **own)
        self.relay_all()
        return outcome

    def relay_all(self) -> None:
        while self.relay.run_once():
            pass

    def look_again(self) -> None:
        """The relay's next try is due."""
        with self.database.begin() as connection:
            connection.execute(update(OUTBOX).values(not_before=None))
        self.relay_all()

    def rows(self, outcome: VerbOutcome) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return list(map(dict, rows_of(connection, outcome.request_id)))

    def waits_because(self, outcome: VerbOutcome) -> str:
        with self.database.connect() as connection:
            return outbox.why_waiting(connection, outcome.request_id) or ""


@pytest.fixture(params=BROKERS)
def scene(
    request: pytest.FixtureRequest, servers: Servers, empty_database: Engine
) -> Iterator[Scene]:
    url = servers.valkey_url()
    at = url if request.param == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at, publish_timeout_s=3)
    harness = ServerHarness(settings)
    with declared(settings) as replies:
        made = Scene(harness, empty_database, replies)
        yield made
        made.publisher.close()
    harness.close()


def message_id(outcome: VerbOutcome) -> str:
    return str(uuid.uuid5(outcome.request_id, "reply"))


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("cancel", {"state": "cancelled"}),
        ("abort", {"state": "aborted"}),
        ("complete", {"state": "completed", "result": {"sent": 1}, "summary": DONE}),
    ],
)
def test_the_service_of_a_queued_job_hears_how_an_operator_ended_it(
    scene: Scene, verb: str, more: dict[str, Any]
) -> None:
    job = scene.enqueue()
    outcome = scene.act(verb, job)
    (reply,) = scene.replies.take()
    assert reply.body == {"job_id": job.job_id, **more}
    assert reply.properties["correlation_id"] == job.job_id
    assert reply.properties["message_id"] == message_id(outcome)
    assert (reply.content_type, reply.headers["taskyard_reply"]) == ("application/json", 1)
    assert WHY not in json.dumps(reply.body)
    requested, applied = scene.rows(outcome)
    assert (requested["outcome"], applied["outcome"]) == ("requested", "applied")
    assert applied["detail"]["reply"] == f"published to queue {scene.replies.name}"


@pytest.mark.parametrize("verb", ["abort", "complete"])
def test_the_service_of_a_running_job_hears_its_end_at_once(scene: Scene, verb: str) -> None:
    job, run = scene.running()
    scene.act(verb, job)
    (reply,) = scene.replies.take()
    assert reply.body["state"] == job.state().value
    scene.finish(job, run, Decision.COMPLETED)
    scene.look_again()
    assert scene.replies.take() == []


def test_the_service_of_a_job_that_stops_hears_it_when_its_attempt_has_ended(scene: Scene) -> None:
    job, run = scene.running()
    outcome = scene.act("cancel", job)
    assert scene.replies.take() == []
    scene.finish(job, run, Decision.RETRYING)
    scene.look_again()
    (reply,) = scene.replies.take()
    assert reply.body == {"job_id": job.job_id, "state": "cancelled"}
    assert reply.properties["message_id"] == message_id(outcome)


def test_a_handler_that_completes_its_job_is_the_one_that_replies(scene: Scene) -> None:
    job, run = scene.running()
    outcome = scene.act("cancel", job)
    scene.finish(job, run, Decision.COMPLETED)
    scene.look_again()
    assert scene.rows(outcome)[-1]["outcome"].startswith(f"refused: job {job.job_id} is completed")
    assert scene.replies.take() == []


@pytest.mark.parametrize("verb", ["cancel", "complete"])
def test_the_service_of_a_dead_lettered_job_hears_its_end(scene: Scene, verb: str) -> None:
    job, run = scene.running()
    scene.finish(job, run, Decision.DEAD_LETTERED)
    outcome = scene.act(verb, job)
    # The mirror has not stored the letter; the reply waits with the answer.
    assert scene.replies.take() == []
    with scene.database.begin() as connection:
        connection.execute(update(OUTBOX).values(attempts=12, not_before=None))
    scene.relay_all()
    (reply,) = scene.replies.take()
    assert reply.body["state"] == job.state().value
    assert scene.rows(outcome)[-1]["detail"]["letter"] == "not in Postgres"


def test_two_operators_who_cancel_one_running_job_cause_one_reply(scene: Scene) -> None:
    job, run = scene.running()
    first, second = scene.act("cancel", job), scene.act("cancel", job)
    scene.finish(job, run, Decision.DEAD_LETTERED)
    scene.look_again()
    (reply,) = scene.replies.take()
    assert reply.properties["message_id"] == message_id(first)
    assert scene.rows(second)[-1]["outcome"] == "applied"
    assert "reply" not in scene.rows(second)[-1]["detail"]


def test_a_second_cancel_after_the_lease_has_ended_does_not_reply_for_the_first(
    scene: Scene,
) -> None:
    job, _ = scene.running()
    first = scene.act("cancel", job)
    scene.records.client.hset(scene.records.keys.record(job.job_id), "lease_until", 1)
    later = update(OUTBOX).where(OUTBOX.c.id == first.request_id)
    with scene.database.begin() as connection:
        connection.execute(later.values(not_before=datetime.now(UTC) + timedelta(hours=1)))
    scene.act("cancel", job)
    assert (job.state(), scene.replies.take()) == (State.CANCELLED, [])
    scene.look_again()
    (reply,) = scene.replies.take()
    assert reply.properties["message_id"] == message_id(first)


def test_jobs_of_one_bulk_keep_each_their_own_queue(scene: Scene) -> None:
    names = [scene.replies.name, None, "another.queue", None, scene.replies.name]
    jobs = scene.yard.enqueue_many(
        EnqueueRequest(job_type="exec_act", payload={"do": "return"}, reply_to=name)
        for name in names * 30
    )
    kept = [scene.records.read(job.job_id).fields for job in jobs]
    assert [fields.get("reply_to") for fields in kept] == names * 30
    ids = [job.job_id if name else None for job, name in zip(jobs, names * 30, strict=True)]
    assert [fields.get("correlation_id") for fields in kept] == ids


def test_a_relay_that_dies_after_the_publication_makes_the_next_one_repeat_it_alike(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = scene.enqueue()
    outcome = scene.control.complete(job.job_id, reason=WHY, summary=DONE, result=[1])

    def die(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "finish_many", die)
        with pytest.raises(Crash):
            scene.relay.run_once()
    assert [row["outcome"] for row in scene.rows(outcome)] == ["requested"]
    scene.relay_all()
    first, second = scene.replies.take()
    assert (first.body, first.headers) == (second.body, second.headers)
    assert {one.properties["message_id"] for one in (first, second)} == {message_id(outcome)}
    assert [row["outcome"] for row in scene.rows(outcome)] == ["requested", "applied"]


def test_a_reply_that_cannot_be_published_postpones_the_answer_and_keeps_what_is_known(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = scene.running()
    outcome = scene.control.abort(job.job_id, reason=WHY)
    request = str(outcome.request_id)
    scene.records.stops.answer(request, StopAnswer.STOPPED)

    def refuse(*_: object, **__: object) -> None:
        raise PublishFailed("the broker is down")

    with monkeypatch.context() as patched:
        patched.setattr(scene.publisher, "publish_reply", refuse)
        scene.relay_all()
    assert (job.state(), scene.replies.take()) == (State.ABORTED, [])
    assert scene.waits_because(outcome) == "the broker is down"
    scene.records.client.delete(f"{scene.settings.namespace}:stopped:{request}")
    scene.look_again()
    assert len(scene.replies.take()) == 1
    assert scene.rows(outcome)[-1]["detail"]["attempt"] == "was stopped"


@pytest.mark.parametrize("scene", ["rabbitmq"], indirect=True)
def test_a_queue_that_rabbitmq_does_not_have_drops_the_reply_and_the_audit_log_says_so(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    job = scene.enqueue(reply_to="replies.of.nowhere")
    with caplog.at_level(logging.WARNING):
        outcome = scene.act("cancel", job)
    applied = scene.rows(outcome)[-1]
    assert (job.state(), applied["outcome"]) == (State.CANCELLED, "applied")
    said = "dropped, because the broker has no queue replies.of.nowhere"
    assert applied["detail"]["reply"] == said
    (record,) = [r for r in caplog.records if getattr(r, "action", "") == "relay_reply_dropped"]
    assert "must declare that queue before it enqueues with reply_to" in record.getMessage()


@pytest.mark.parametrize("scene", ["rabbitmq"], indirect=True)
def test_a_rabbitmq_that_blocks_publishers_gets_the_reply_later(
    scene: Scene, servers: Servers
) -> None:
    # The connection is open before the alarm, as that of a relay that works.
    scene.act("cancel", scene.enqueue())
    assert len(scene.replies.take()) == 1
    job = scene.enqueue()
    with memory_alarm(servers.rabbitmq):
        outcome = scene.act("cancel", job)
        assert job.state() is State.CANCELLED
        said = scene.waits_because(outcome)
        assert said.startswith(f"the reply about job {job.job_id} was not published: RabbitMQ")
    scene.look_again()
    bodies = eventually(scene.replies.take, "the reply")
    assert {reply.properties["message_id"] for reply in bodies} == {message_id(outcome)}
    assert scene.rows(outcome)[-1]["outcome"] == "applied"


@pytest.mark.parametrize("scene", ["redis"], indirect=True)
def test_a_key_that_is_no_list_drops_the_reply(scene: Scene) -> None:
    publisher = RedisPublisher(scene.settings)
    key = publisher.layout.key("no.list", 0)
    publisher.client.set(key, "text")
    outcome = scene.act("cancel", scene.enqueue(reply_to="no.list"))
    detail = scene.rows(outcome)[-1]["detail"]
    assert detail["reply"] == "dropped, because the broker has no queue no.list"
    assert publisher.client.get(key) == b"text"
    publisher.close()


@pytest.mark.parametrize("scene", ["redis"], indirect=True)
def test_on_redis_the_reply_is_in_the_list_of_the_namespace(scene: Scene) -> None:
    job = scene.enqueue(reply_to="no.reader.yet")
    scene.act("abort", job)
    raw: Any = scene.records.client.lrange(f"{scene.settings.namespace}:no.reader.yet", 0, -1)
    (document,) = map(json.loads, raw)
    assert document["properties"]["correlation_id"] == job.job_id
    assert document["headers"] == {"taskyard_reply": 1}


def test_a_job_whose_record_a_worker_made_has_no_reply(scene: Scene) -> None:
    """Other producers' messages name a queue of Celery's result backend, which hears of the end."""
    job = scene.enqueue()
    scene.records.client.delete(scene.records.keys.record(job.job_id))
    scene.records.attempts.begin(
        job.job_id, None, holder="h", worker="w@host", process="1", job_type="exec_act",
        queue="exec",
    )  # fmt: skip
    outcome = scene.act("abort", job)
    assert (job.state(), scene.replies.take()) == (State.ABORTED, [])
    assert "reply" not in scene.rows(outcome)[-1]["detail"]
