"""RabbitMQ in trouble: it blocks publishers, closes channels and connections; nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from servers import RabbitMQ, Servers
from support.handlers import Notes
from support.rabbitmq import count_messages, letters_of, memory_alarm
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import Taskyard
from taskyard.engine.quorum_delivery_limit import RENEW_AT
from taskyard.errors import PublishFailed
from taskyard.jobs.states import State
from taskyard.settings import Settings

PUBLISH_TIMEOUT_S = 1.0


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(
        servers.valkey_url(),
        broker_url=servers.rabbitmq_url(),
        publish_timeout_s=PUBLISH_TIMEOUT_S,
        lease_s=2,
        delivery_limit=2,
    )


@pytest.fixture
def yard(settings: Settings) -> Iterator[Taskyard]:
    with Taskyard(settings, catalogue()) as made:
        yield made


@pytest.fixture
def notes(yard: Taskyard) -> Notes:
    """What the handlers wrote down."""
    return Notes(yard.records.client, yard.settings.namespace)


def test_an_enqueue_that_rabbitmq_blocks_is_told_in_time_and_can_be_repeated(
    servers: Servers, yard: Taskyard, start_worker: Callable[..., Worker]
) -> None:
    yard.enqueue("exec_act", {"do": "return"})
    with memory_alarm(servers.rabbitmq):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(PublishFailed, match="blocks publishers, because memory"):
                yard.enqueue("exec_act", {"do": "return", "value": 3}, idempotency_key="k")
            assert time.monotonic() - began < 4 * PUBLISH_TIMEOUT_S
        began = time.monotonic()
        with pytest.raises(PublishFailed):
            yard.enqueue("exec_act", {"do": "return"}, countdown=5)
        assert time.monotonic() - began < 8 * PUBLISH_TIMEOUT_S
    again = yard.enqueue("exec_act", {"do": "return", "value": 3}, idempotency_key="k")
    start_worker(queues=("exec",))
    assert not again.created
    assert again.result(30) == 3


@pytest.mark.slow
def test_a_worker_serves_what_is_queued_while_publishers_are_blocked_and_publishes_after(
    servers: Servers, yard: Taskyard, start_worker: Callable[..., Worker], settings: Settings
) -> None:
    worker = start_worker(queues=("exec",))
    worker.await_log(" ready.")
    waits = {"countdown": 6}
    once = {"max_retries": 1, "backoff_strategy": "linear", "base_delay_ms": 1000}
    plain = [yard.enqueue("exec_act", {"do": "return", "value": n}, **waits) for n in range(20)]
    dying = yard.enqueue("exec_act", {"do": "fail"}, policy={"max_retries": 0}, **waits)
    retried = yard.enqueue("exec_act", {"do": "fail", "times": 1, "value": 9}, policy=once, **waits)
    with memory_alarm(servers.rabbitmq):
        assert [job.result(30) for job in plain] == list(range(20))
        # What only waits for its publication is no poison.
        dead = State.DEAD_LETTERED
        eventually(lambda: dying.state() is dead, "dead", why=lambda: worker.log[-9000:])
    assert retried.result(90) == 9
    # Each try may arrive when RabbitMQ reads again; one letter by its id, which the mirror goes by.
    letters = letters_of(settings, 1, why=lambda: worker.log[-9000:])
    assert {(letter.job_id, letter.category.value) for letter in letters} == {
        (dying.job_id, "retry_exhausted")
    }
    assert len({letter.letter_id for letter in letters}) == 1
    assert "because memory or disk space is low: this worker sends no task events" in worker.log
    assert worker.running


@pytest.mark.slow
def test_what_goes_back_again_and_again_is_not_dropped_at_a_quorum_queues_limit(
    servers: Servers,
    yard: Taskyard,
    notes: Notes,
    start_worker: Callable[..., Worker],
    settings: Settings,
) -> None:
    """Ten returns, each after a publication that timed out; `short_waits` keeps the rest short."""
    name = settings.broker_name("exec")
    with connection(settings) as broker:
        # Where RabbitMQ 4 has a limit of 20 by itself, and no letter is made of what it drops.
        limited = {"x-queue-type": "quorum", "x-delivery-limit": RENEW_AT + 2}
        broker.default_channel.queue_declare(
            name, durable=True, auto_delete=False, arguments=limited
        )
    worker = start_worker(queues=("exec",), modules=("support.short_waits", HANDLERS))
    worker.await_log(" ready.")
    once = {"max_retries": 1, "backoff_strategy": "linear", "base_delay_ms": 1000}
    act = {"do": "gate then fail", "gate": "alarmed", "times": 1, "value": 9}
    retried = yard.enqueue("exec_act", act, policy=once)
    eventually(lambda: notes.runs(retried.job_id) == 1, "the first run", why=lambda: worker.log)
    held = f"job {retried.job_id}: its message was returned so often that RabbitMQ would drop it"
    with memory_alarm(servers.rabbitmq):
        # Not by a countdown: setting the alarm may take longer on a busy machine.
        notes.open_gate("alarmed")
        worker.await_log(held, within_s=90)
    assert retried.result(30) == 9
    # What was tried while it was blocked may arrive too; that it is acknowledged is what counts.
    worker.await_log(f"job {retried.job_id}: its message was returned {RENEW_AT} times")
    eventually(lambda: count_messages(settings, [name]) == 0, "an empty queue")


@contextmanager
def hasty_consumer_timeout(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Channels opened meanwhile are closed when a message is held for 2 s, not for 30 minutes."""

    def set_timeouts(timeout: str, tick: str) -> None:
        rabbitmq.ctl("eval", f"application:set_env(rabbit, consumer_timeout, {timeout}).")
        rabbitmq.ctl("eval", f"application:set_env(rabbit, channel_tick_interval, {tick}).")

    set_timeouts("2000", "500")
    try:
        yield
    finally:
        set_timeouts("1800000", "60000")


@pytest.mark.slow
def test_a_worker_goes_on_after_rabbitmq_closed_its_channel_for_a_message_held_too_long(
    servers: Servers, yard: Taskyard, notes: Notes, start_worker: Callable[..., Worker]
) -> None:
    with hasty_consumer_timeout(servers.rabbitmq):
        worker = start_worker(queues=("exec",))
        held = yard.enqueue("exec_act", {"do": "return", "gate": "g", "value": 1})
        worker.await_log("Trying to re-establish the connection")
        notes.open_gate("g")
        assert held.result(30) == 1
        assert yard.enqueue("exec_act", {"do": "return", "value": 2}).result(30) == 2
    assert worker.running


@pytest.mark.slow
def test_a_worker_goes_on_after_rabbitmq_closed_every_connection(
    servers: Servers, yard: Taskyard, notes: Notes, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(queues=("exec",))
    held = yard.enqueue("exec_act", {"do": "return", "gate": "g", "value": 1})
    eventually(lambda: notes.runs(held.job_id), "it runs", why=lambda: worker.log)
    servers.rabbitmq.ctl("close_all_connections", "a test")
    eventually(lambda: notes.runs(held.job_id) == 2, "it runs again", why=lambda: worker.log)
    notes.open_gate("g")
    assert held.result(30) == 1
    assert yard.enqueue("exec_act", {"do": "return", "value": 2}).result(30) == 2
    assert worker.running
