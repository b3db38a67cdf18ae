"""RabbitMQ is killed while what has waited moves on to its queue: nothing of it is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from amqp.exceptions import NotFound
from kombu import Connection
from kombu.transport.native_delayed_delivery import level_name

from servers import RabbitMQ
from support.waiting import eventually
from taskyard.broker.amqp_publisher import AmqpPublisher
from taskyard.clock import SYSTEM_CLOCK, to_us
from taskyard.errors import PublishFailed
from taskyard.queues import inquire
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

pytestmark = pytest.mark.slow

WAIT_S = 1
# The first messages have moved on, the last ones not yet, when the server dies.
PUBLISHED_FOR_S = WAIT_S + 0.4
BODY = RawMessage(body=b"[[], {}, {}]", headers={"task": "exec_act"}, properties={})


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    server = RabbitMQ(tmp_path / "rabbitmq")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def publish(publisher: AmqpPublisher, number: int) -> str:
    job_id = f"job-{number}"
    now_us = to_us(SYSTEM_CLOCK.now())
    publisher.publish_later(
        BODY.model_copy(update={"headers": {**BODY.headers, "id": job_id}}),
        queue="exec",
        priority=None,
        job_id=job_id,
        stamp=Stamp(now_us, seq=1),
        due_us=now_us + WAIT_S * 1_000_000,
    )
    return job_id


def test_a_retry_that_was_just_due_survives_the_death_of_the_server(rabbitmq: RabbitMQ) -> None:
    settings = Settings(namespace="hop", broker_url=rabbitmq.url)
    with closing(AmqpPublisher(settings)) as publisher:
        sent = {publish(publisher, 0)}  # declares, which takes its time
        until_s = time.monotonic() + PUBLISHED_FOR_S
        while time.monotonic() < until_s:
            sent.add(publish(publisher, len(sent)))
    assert_survives(rabbitmq, sent)


def test_the_first_retry_of_all_survives_the_death_of_the_server(rabbitmq: RabbitMQ) -> None:
    settings = Settings(namespace="hop", broker_url=rabbitmq.url)
    with closing(AmqpPublisher(settings)) as publisher:
        assert_survives(rabbitmq, {publish(publisher, 0)})


def test_the_first_retry_of_a_worker_that_finds_levels_just_declared_survives_as_well(
    rabbitmq: RabbitMQ,
) -> None:
    settings = Settings(namespace="hop", broker_url=rabbitmq.url)
    with (
        ThreadPoolExecutor(1) as pool,
        closing(AmqpPublisher(settings)) as first,
        closing(AmqpPublisher(settings)) as second,
    ):
        declaring = pool.submit(publish, first, 0)
        eventually(lambda: is_there(rabbitmq, level_name(0, "hop.quorum")), "the last level")
        sent = {publish(second, 1)}
        os.kill(rabbitmq.pid, signal.SIGKILL)
        with suppress(PublishFailed):
            sent.add(declaring.result(30))
    assert_survives(rabbitmq, sent)


def is_there(rabbitmq: RabbitMQ, queue: str) -> bool:
    with Connection(rabbitmq.url) as connection:
        try:
            inquire(connection, queue)
        except NotFound:
            return False
    return True


def assert_survives(rabbitmq: RabbitMQ, sent: set[str]) -> None:
    with suppress(ProcessLookupError):
        os.kill(rabbitmq.pid, signal.SIGKILL)
    rabbitmq.stop()
    rabbitmq.start()
    found: set[str] = set()
    with Connection(rabbitmq.url) as connection:
        channel = connection.default_channel

        def all_there() -> bool:
            while (message := channel.basic_get("hop.exec", no_ack=True)) is not None:
                found.add(message.headers["id"])
            return sent <= found

        eventually(all_there, "every retry", why=lambda: f"lost: {sorted(sent - found)}")
