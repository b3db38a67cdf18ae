"""`taskyard queues forward`: moved jobs leave a RabbitMQ queue that no worker reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue
from sqlalchemy import Engine

from servers import Servers
from support.shell import connected_shell
from support.yard import ServerHarness, fresh_settings
from taskyard.broker import connection
from taskyard.client import JobHandle
from taskyard.errors import Refused
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.records import Records, VerbApplied, VerbTarget
from taskyard.relay.forward_waiting import Forwarded, forward_waiting
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire import Stamp

pytestmark = pytest.mark.slow


class Scene:
    """Queues at RabbitMQ without any worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.harness = settings, ServerHarness(settings)
        self.records: Records = self.harness.yard.records

    def reroute(self, job: JobHandle, to: str = "plan") -> None:
        target = VerbTarget(job.job_id)
        answer = self.records.verbs.reroute(target, f"r-{job.job_id}", "ops", to)
        assert isinstance(answer, VerbApplied), answer

    def forward(self, queue: str = "exec") -> Forwarded:
        with closing(AnyQueuePublisher(self.settings, self.records)) as publisher:
            return forward_waiting(self.settings, self.records, publisher, queue)

    def take(self, queue: str) -> list[dict[str, Any]]:
        """The headers of a queue's messages, the next one first; after that it is empty."""
        with connection(self.settings) as broker:
            name = self.settings.broker_name(queue)
            get = Queue(name, no_declare=True)(broker.default_channel).get
            return [dict(message.headers) for message in iter(lambda: get(no_ack=True), None)]


@pytest.fixture
def scene(servers: Servers) -> Iterator[Scene]:
    made = Scene(fresh_settings(servers.valkey_url(), broker_url=servers.rabbitmq_url()))
    yield made
    made.harness.close()


def test_the_messages_of_moved_jobs_are_forwarded_and_all_others_keep_their_order(
    scene: Scene,
) -> None:
    jobs = [scene.harness.act(value=number, policy={"max_retries": 7}) for number in range(6)]
    for job in (jobs[1], jobs[4]):
        scene.reroute(job)
    assert scene.forward() == Forwarded(2, 4)
    assert [jobs[number].state() for number in (1, 4)] == [State.ACCEPTED] * 2
    left = [headers["id"] for headers in scene.take("exec")]
    assert left == [jobs[number].job_id for number in (0, 2, 3, 5)]
    moved = scene.take("plan")
    assert [headers["id"] for headers in moved] == [jobs[1].job_id, jobs[4].job_id]
    stamp = Stamp.read(moved[0])
    assert stamp is not None
    assert (stamp.generation, stamp.seq, stamp.policy) == (1, 0, {"max_retries": 7})


def test_a_stale_message_of_a_moved_job_is_not_forwarded(scene: Scene) -> None:
    job = scene.harness.act()
    scene.reroute(job)
    key = scene.records.keys.record(job.job_id)
    scene.harness.redis.hset(key, "moved_from", f"{job.record().epoch}:0:1")
    assert scene.forward() == Forwarded(0, 1)
    assert job.state() is State.REROUTED


def test_a_second_run_finds_nothing_more(scene: Scene) -> None:
    job = scene.harness.act()
    scene.reroute(job)
    assert scene.forward() == Forwarded(1, 0)
    assert scene.forward() == Forwarded(0, 0)


def test_a_queue_that_a_worker_reads_is_left_to_the_worker(scene: Scene) -> None:
    scene.harness.act()
    with connection(scene.settings) as broker:
        queue = Queue(scene.settings.broker_name("exec"), no_declare=True)
        with (
            broker.Consumer([queue], auto_declare=False),
            pytest.raises(Refused, match="consumers: 1"),
        ):
            scene.forward()


def test_a_message_that_rabbitmq_may_drop_is_not_returned_once_more(scene: Scene) -> None:
    """A count in the header of a client's message is refused too: it cannot be told apart."""
    job = scene.harness.act()
    scene.reroute(job)
    (headers,) = scene.take("exec")
    with connection(scene.settings) as broker:
        broker.Producer().publish(
            json.dumps([[], {}, {}]),
            routing_key=scene.settings.broker_name("exec"),
            headers={**headers, "x-delivery-count": 10},
            content_type="application/json",
            content_encoding="utf-8",
        )
    with pytest.raises(Refused, match="was returned 10 times already"):
        scene.forward()
    assert job.state() is State.REROUTED
    assert len(scene.take("exec")) == 1


def test_an_unknown_queue_and_a_redis_broker_are_refused(scene: Scene, servers: Servers) -> None:
    with pytest.raises(Refused, match="RabbitMQ has no queue 'nowhere'"):
        scene.forward("nowhere")
    settings = fresh_settings(servers.valkey_url())
    with closing(connect(settings.need_redis_url())) as client:
        records = Records(client, settings)
        publisher = AnyQueuePublisher(settings, records)
        with pytest.raises(Refused, match="the broker is Redis"):
            forward_waiting(settings, records, publisher, "exec")


def test_the_command_needs_the_right_to_reroute_and_says_what_it_did(
    scene: Scene, servers: Servers, tmp_path: Path, empty_database: Engine, database_url: str
) -> None:
    job = scene.harness.act()
    scene.reroute(job)
    shell = connected_shell(
        tmp_path,
        servers,
        database_url,
        TASKYARD_TRUST_LOCAL="1",
        TASKYARD_NAMESPACE=scene.settings.namespace,
        TASKYARD_BROKER_URL=scene.settings.need_broker_url(),
        TASKYARD_REDIS_URL=scene.settings.need_redis_url(),
    )
    ran = shell.run("queues", "forward", "exec", "--json")
    assert ran.code == 0, ran.err
    assert ran.document == {"queue": "exec", "forwarded": 1, "returned": 0}
    refused = shell.run("queues", "forward", "exec", TASKYARD_TRUST_LOCAL="")
    assert refused.code == 6
