"""Work queues on RabbitMQ: declared as the server allows, taken as they are where they exist."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from servers import Servers
from support.rabbitmq import chosen, letters_of
from support.waiting import eventually
from support.worker import Worker
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import JobHandle, Taskyard
from taskyard.jobs.states import State
from taskyard.queues import look_at, rabbit_queues
from taskyard.settings import Settings


@pytest.fixture
def settings(servers: Servers, request: pytest.FixtureRequest) -> Settings:
    """The broker is RabbitMQ; a test's parameter, if any, is the type of queues it asks for."""
    asked = getattr(request, "param", "auto")
    urls = {"broker_url": servers.rabbitmq_url()}
    return fresh_settings(servers.valkey_url(), rabbitmq_queue_type=asked, **urls)


@pytest.fixture
def yard(settings: Settings) -> Iterator[Taskyard]:
    with Taskyard(settings, catalogue()) as made:
        yield made


def declare(settings: Settings, queue: str, arguments: dict[str, Any], **flags: bool) -> None:
    """What somebody else did before us."""
    with connection(settings) as broker:
        broker.default_channel.queue_declare(
            settings.broker_name(queue),
            arguments=arguments,
            **{"durable": True, "auto_delete": False, **flags},
        )


def await_death(job: JobHandle, worker: Worker) -> None:
    eventually(lambda: job.state() is State.DEAD_LETTERED, "dead", why=lambda: worker.log)


FOREIGN: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({}, {}),
    ({"x-max-priority": 10, "x-dead-letter-exchange": "somewhere"}, {}),
    ({"x-message-ttl": 600_000, "x-max-length": 1000, "x-overflow": "reject-publish"}, {}),
    ({"x-queue-type": "quorum"}, {}),
    (
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": 7,
            "x-dead-letter-exchange": "somewhere",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
        {},
    ),
    ({"x-single-active-consumer": True, "x-queue-mode": "lazy"}, {}),
    ({}, {"durable": False}),
    ({"x-expires": 600_000}, {"auto_delete": True}),
]


@pytest.mark.parametrize(("arguments", "flags"), FOREIGN)
def test_a_queue_is_seen_as_it_is_whatever_it_was_declared_with(
    settings: Settings, arguments: dict[str, Any], flags: dict[str, bool]
) -> None:
    declare(settings, "exec", arguments, **flags)
    with connection(settings) as broker:
        found = look_at(broker.connection, settings.broker_name("exec"))
        assert found is not None
        assert dict(found.arguments) == arguments
        assert dict(found.flags) == {"durable": True, **flags}
        (ours,) = [q for q in rabbit_queues(settings) if q.name == settings.broker_name("exec")]
        assert dict(ours.settle(broker.connection).arguments) == arguments


def test_a_queue_that_is_missing_is_seen_as_missing(settings: Settings) -> None:
    with connection(settings) as broker:
        assert look_at(broker.connection, settings.broker_name("exec")) is None


def test_a_worker_says_at_its_start_what_it_chose_and_why(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(queues=("exec",))
    worker.await_log(" ready.")
    choice = chosen(settings)
    assert f"{choice.server}: {choice.queue_type} queues with " in worker.log
    assert f"priorities, {choice.reason}. Delayed messages go through our own" in worker.log
    assert "already exists with other arguments" not in worker.log
    with connection(settings) as broker:
        found = look_at(broker.connection, settings.broker_name("exec"))
    assert found is not None
    # A server of before 4.0 takes an absent type for classic, and does not tell it.
    assert found.arguments.get("x-queue-type", "classic") == choice.queue_type


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}])
def test_jobs_run_and_die_into_letters_on_a_queue_that_was_there_before(
    settings: Settings,
    yard: Taskyard,
    start_worker: Callable[..., Worker],
    arguments: dict[str, Any],
) -> None:
    declare(settings, "exec", arguments)
    ran = yard.enqueue("exec_act", {"do": "return", "value": 7}, priority=5)
    died = yard.enqueue("exec_act", {"do": "fail", "code": "hopeless"}, policy={"max_retries": 0})
    retried = yard.enqueue(
        "exec_act",
        {"do": "fail", "code": "flaky"},
        policy={"max_retries": 1, "backoff_strategy": "linear", "base_delay_ms": 1000},
    )
    name = settings.broker_name("exec")
    with connection(settings) as broker:
        broker.default_channel.basic_publish_confirm(
            broker.default_channel.prepare_message(b"junk", content_type="text/plain"),
            exchange="",
            routing_key=name,
        )
    unknown = yard.app.send_task("nobody.knows", queue=name)

    worker = start_worker(queues=("exec",))
    assert ran.result(30) == 7
    for job in (died, retried):
        eventually(
            lambda job=job: job.state() is State.DEAD_LETTERED, "dead", why=lambda: worker.log
        )
    found = letters_of(settings, 4, why=lambda: worker.log)
    assert {letter.job_id for letter in found} >= {died.job_id, retried.job_id, unknown.id}
    assert worker.log.count(f"queue {name} already exists with other arguments") == 1
    assert "it has no x-dead-letter-exchange" in worker.log
    assert "`taskyard check`" in worker.log


@pytest.mark.parametrize("settings", ["quorum"], indirect=True)
def test_quorum_queues_carry_jobs_retries_and_letters_where_they_are_asked_for(
    settings: Settings, yard: Taskyard, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    worker.await_log(" ready.")
    levels = {1: "no", 2: "two", 4: "four"}[chosen(settings).priorities]
    assert f"quorum queues with {levels} priorities, as rabbitmq_queue_type says" in worker.log
    ran = yard.enqueue("exec_act", {"do": "return", "value": 7}, priority=5)
    late = yard.enqueue("exec_act", {"do": "return", "value": 8}, countdown=1)
    died = yard.enqueue(
        "exec_act",
        {"do": "fail", "code": "flaky"},
        policy={"max_retries": 1, "backoff_strategy": "linear", "base_delay_ms": 1000},
    )
    assert (ran.result(30), late.result(30)) == (7, 8)
    await_death(died, worker)
    (letter,) = letters_of(settings, 1, why=lambda: worker.log)
    assert letter.job_id == died.job_id
    assert len(letter.attempts) == 2
    with connection(settings) as broker:
        for queue in ("exec", "dead-letter.mirror"):
            found = look_at(broker.connection, f"{settings.namespace}.{queue}")
            assert found is not None
            assert found.arguments["x-queue-type"] == "quorum"


def test_what_a_canvas_publishes_finds_a_queue_that_was_there_before(
    settings: Settings, yard: Taskyard
) -> None:
    declare(settings, "exec", {})
    yard.app.send_task("exec_act", [{"do": "return"}])
    name = settings.broker_name("exec")
    with connection(settings) as broker:
        assert broker.default_channel.basic_get(name, no_ack=True) is not None


def test_urgent_jobs_that_wait_make_no_other_wait_longer(
    settings: Settings, yard: Taskyard, start_worker: Callable[..., Worker]
) -> None:
    start_worker(queues=("exec",)).await_log(" ready.")
    first = yard.enqueue("exec_act", {"do": "return", "value": 1}, countdown=4, priority=2)
    began_s = time.monotonic()
    eventually(lambda: time.monotonic() - began_s > 3, "most of its wait is over")
    # They come to the same level of the delay exchanges, and would stand before it there.
    urgent = [
        yard.enqueue("exec_act", {"do": "return", "value": 2}, countdown=4, priority=5)
        for _ in range(20)
    ]
    assert first.result(30) == 1
    assert all(job.state() is not State.COMPLETED for job in urgent)
    assert [job.result(30) for job in urgent] == [2] * 20
