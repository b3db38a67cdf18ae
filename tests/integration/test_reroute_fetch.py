"""The relay moves a message that waits at Redis itself; what it cannot find, workers forward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete

from servers import Servers
from support.relay import relaying
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.client import JobHandle
from taskyard.control import Control
from taskyard.database.tables import OUTBOX
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Run
from taskyard.records.script_replies import Finished
from taskyard.wire import RawMessage, Stamp

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "The workers of this queue are down for maintenance today"


class Scene:
    """Queues without any worker, and a relay."""

    def __init__(self, harness: ServerHarness, database: Engine) -> None:
        self.harness, self.database = harness, database
        self.control = Control(database, harness.yard.records, OPS)

    def reroute(self, job: JobHandle) -> tuple[str, dict[str, Any]]:
        """The outcome, and the detail of the relay's answer."""
        outcome = self.control.reroute(job.job_id, "plan", reason=WHY)
        with self.database.connect() as connection:
            rows = rows_of(connection, outcome.request_id)
        return outcome.outcome, rows[-1]["detail"]

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """The messages of a queue, the next one first."""
        keys = [list_key(self.harness.settings, queue, step) for step in (0, 3, 6, 9)]
        found: list[Any] = [raw for key in keys for raw in self.harness.broker.lrange(key, 0, -1)]
        return [json.loads(raw) for raw in found]


@pytest.fixture
def scene(servers: Servers, database: Engine) -> Iterator[Scene]:
    settings = fresh_settings(servers.valkey_url())
    harness = ServerHarness(settings)
    with relaying(settings, database):
        yield Scene(harness, database)
    harness.close()
    with database.begin() as connection:
        connection.execute(delete(OUTBOX))


def test_a_message_in_a_queue_without_workers_is_moved_and_the_others_stay_in_their_order(
    scene: Scene,
) -> None:
    before, job, behind = (scene.harness.act(value=number) for number in range(3))
    expires = scene.messages("exec")[1]["headers"]["expires"]
    outcome, detail = scene.reroute(job)
    assert (outcome, detail["state"], detail["to_queue"]) == ("applied", "accepted", "plan")
    assert job.state() is State.ACCEPTED
    left = [one["headers"]["id"] for one in scene.messages("exec")]
    assert left == [behind.job_id, before.job_id]
    (moved,) = scene.messages("plan")
    assert (moved["headers"]["id"], moved["headers"]["expires"]) == (job.job_id, expires)
    assert moved["properties"]["delivery_info"]["routing_key"].endswith("plan")
    stamp = Stamp.read(moved["headers"])
    assert stamp is not None
    assert (stamp.epoch, stamp.generation, stamp.seq) == (job.record().epoch, 1, 0)
    place = {"worker": "w", "process": "p", "job_type": "exec_act", "queue": "plan"}
    assert isinstance(
        scene.harness.yard.records.attempts.begin(job.job_id, stamp, holder="h", **place), Run
    )


def test_a_message_in_the_delay_store_is_moved_and_keeps_its_time(scene: Scene) -> None:
    job = scene.harness.act(countdown=600)
    store, broker = scene.harness.yard.publisher.delay_store, scene.harness.broker
    ((_, due),) = broker.zrange(store.due_key, 0, -1, withscores=True)
    outcome, _ = scene.reroute(job)
    assert (outcome, job.state()) == ("applied", State.ACCEPTED)
    member = f"{job.job_id}:1:0".encode()
    assert broker.zrange(store.due_key, 0, -1, withscores=True) == [(member, due)]
    assert broker.hkeys(store.messages_key) == [member]
    broker.zadd(store.due_key, {member: 1})
    store.promote()
    (moved,) = scene.messages("plan")
    assert moved["headers"]["id"] == job.job_id
    assert scene.harness.leftovers() == {"queued": 1}


def test_a_retry_in_the_delay_store_is_moved(scene: Scene) -> None:
    job = scene.harness.act(countdown=600)
    records, publisher = scene.harness.yard.records, scene.harness.yard.publisher
    place = {"worker": "w", "process": "p", "job_type": "exec_act", "queue": "exec"}
    run = records.attempts.begin(job.job_id, Stamp(job.record().epoch), holder="h", **place)
    assert isinstance(run, Run)
    at = {"epoch": run.epoch, "generation": 0, "seq": 0, "token": run.token}
    done = records.attempts.finish(job.job_id, Decision.RETRYING, delay_s=600, cause=b"", **at)
    assert isinstance(done, Finished)
    message = RawMessage(body=b"[]", headers={"id": job.job_id, "task": "exec_act"})
    store = publisher.delay_store
    scene.harness.broker.delete(store.due_key, store.messages_key)
    publisher.publish_later(
        message,
        queue="exec",
        priority=3,
        job_id=job.job_id,
        stamp=Stamp(run.epoch, 0, 1),
        due_us=done.due_us,
    )
    outcome, _ = scene.reroute(job)
    assert (outcome, job.state()) == ("applied", State.ACCEPTED)
    assert scene.harness.broker.hkeys(store.messages_key) == [f"{job.job_id}:1:0".encode()]


def test_the_policy_of_one_job_goes_with_its_message(scene: Scene) -> None:
    job = scene.harness.act(policy={"max_retries": 7})
    scene.reroute(job)
    (moved,) = scene.messages("plan")
    assert moved["headers"]["taskyard"]["policy"] == {"max_retries": 7}


def test_a_message_far_from_the_end_that_is_served_next_stays_for_a_worker(scene: Scene) -> None:
    job = scene.harness.act()
    key = next(
        key
        for key in (list_key(scene.harness.settings, "exec", step) for step in (0, 3, 6, 9))
        if scene.harness.broker.llen(key)
    )
    scene.harness.broker.rpush(key, *[f"junk {number}" for number in range(2_001)])
    outcome, _ = scene.reroute(job)
    assert (outcome, job.state()) == ("pending", State.REROUTED)
    assert scene.messages("plan") == []
    scene.harness.broker.delete(key)


def test_a_message_that_a_worker_has_taken_is_not_moved(scene: Scene) -> None:
    job = scene.harness.act()
    for key in scene.harness.queue_keys:
        scene.harness.broker.delete(key)
    outcome, _ = scene.reroute(job)
    assert (outcome, job.state()) == ("pending", State.REROUTED)
    assert scene.messages("plan") == []
