"""What the consumer does with a message before and after Celery's own handler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from redis.exceptions import RedisError

from taskyard.engine.consumer import JobConsumer
from taskyard.install.installed_consumer import InstalledConsumer
from taskyard.install.modes import Mode
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.replay_by_category import replay_eligible
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.stamp_header import Stamp

SETTINGS = Settings(redis_url="redis://nowhere:1/0")


class Message:
    """A kombu message as far as a consumer looks at it."""

    content_type, content_encoding = "application/json", "utf-8"
    body, payload = b"[[], {}, {}]", [[], {}, {}]
    properties: ClassVar[dict[str, Any]] = {}

    def __init__(self, **headers: Any) -> None:
        self.headers = {"id": "job-1", "task": "t", **headers}
        self.delivery_info: dict[str, Any] = {"routing_key": "work"}
        self.settlement = ""

    def ack_log_error(self, *_: Any) -> None:
        self.settlement = "acknowledged"

    def reject_log_error(self, *_: Any, requeue: bool) -> None:
        self.settlement = "back" if requeue else "dropped"


class Publisher:
    """Notes what is published, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls = error, 0

    def publish(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error

    publish_later = publish


def yard_with(publisher: Publisher) -> Any:
    letters: list[Any] = []
    return SimpleNamespace(
        settings=SETTINGS,
        records=MemoryRecords(YardClock(datetime.now(UTC)), SETTINGS),
        publisher=publisher,
        posted=letters,
        backoff=FailureBackoff(),
        letters=SimpleNamespace(post=letters.append),
        source=lambda _message: "work",
        home=lambda _record, _message: "work",
        mode=lambda _task: Mode.PROTECT,
    )


def consumer_of(kind: type[JobConsumer], yard: Any, strategy: Callable[..., Any]) -> Any:
    """A consumer that is connected to nothing."""
    consumer = object.__new__(kind)
    consumer.hostname, consumer.connection_errors = "one@here", (ConnectionError,)
    consumer.app = SimpleNamespace(
        taskyard=yard,
        amqp=SimpleNamespace(queues={}),
        conf=SimpleNamespace(task_queues=None, task_default_exchange=""),
    )
    consumer.strategies, consumer.on_task_message = {"t": strategy}, set()
    consumer._maximum_prefetch_restored = True
    consumer.controller = SimpleNamespace(state=SimpleNamespace(revoked=set()))
    consumer.task_consumer = SimpleNamespace(_active_tags={}, channel=None)
    consumer.held_queues = SimpleNamespace(take_back=lambda _message: False)
    return consumer


def closed(*_: Any) -> None:
    raise ValueError("Pool not running")


def test_a_message_that_this_worker_cannot_take_is_a_letter_that_may_be_replayed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    yard, message = yard_with(Publisher()), Message()
    consumer_of(JobConsumer, yard, closed).create_task_handler()(message)
    (letter,) = yard.posted
    assert (letter.category, letter.code) == ("internal_error", "not_taken")
    assert replay_eligible(letter.category)
    assert letter.error_message == (
        "worker one@here could not start the message: ValueError: Pool not running; "
        "find the cause in the worker's log (action=not_taken) and correct it, "
        "then replay the dead letter"
    )
    assert message.settlement == "acknowledged"
    assert "not_taken" in [vars(record).get("action") for record in caplog.records]


def test_a_message_of_another_shape_is_no_valid_task() -> None:
    yard = yard_with(Publisher())
    consumer_of(JobConsumer, yard, closed).create_task_handler()(Message(timelimit="ab"))
    (letter,) = yard.posted
    assert (letter.category, letter.code) == ("undecodable", "malformed")
    assert "the message is not a valid task: header 'timelimit'" in letter.error_message


def test_a_lost_connection_is_left_to_celery() -> None:
    def lost(*_: Any) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        consumer_of(JobConsumer, yard_with(Publisher()), lost).create_task_handler()(Message())


def test_a_retry_that_was_decided_is_published_though_its_message_cannot_be_taken() -> None:
    yard = yard_with(Publisher())
    run = yard.records.attempts.begin(
        "job-1", Stamp(5), holder="h", worker="w", job_type="t", queue="work"
    )
    yard.records.attempts.finish(
        "job-1", Decision.RETRYING, epoch=5, generation=0, seq=0, token=run.token, delay_s=9.0
    )
    message = Message(taskyard={"v": 1, "epoch": 5, "generation": 0, "seq": 0})
    consumer_of(JobConsumer, yard, closed).create_task_handler()(message)
    assert (yard.publisher.calls, yard.posted, message.settlement) == (1, [], "acknowledged")


def test_a_finished_jobs_message_that_cannot_be_served_is_told_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    yard = yard_with(Publisher())
    run = yard.records.attempts.begin(
        "job-1", Stamp(5), holder="h", worker="w", job_type="t", queue="work"
    )
    yard.records.attempts.finish(
        "job-1", Decision.COMPLETED, epoch=5, generation=0, seq=0, token=run.token
    )
    message = Message(taskyard={"v": 1, "epoch": 5, "generation": 0, "seq": 0})
    consumer_of(JobConsumer, yard, closed).create_task_handler()(message)
    assert (yard.posted, message.settlement) == ([], "acknowledged")
    [logged] = [r for r in caplog.records if vars(r).get("action") == "ended_without_letter"]
    assert (
        "job job-1 is already completed, so this other message of it is dropped"
        in logged.getMessage()
    )


@pytest.mark.parametrize("kind", [JobConsumer, InstalledConsumer])
def test_a_message_that_cannot_be_put_off_is_tried_and_told_once(
    kind: type[JobConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Any] = []
    publisher = Publisher(RedisError("away"))
    handle = consumer_of(kind, yard_with(publisher), lambda *a: taken.append(a))
    with caplog.at_level(logging.WARNING):
        eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        handle.create_task_handler()(Message(eta=eta))
    assert (publisher.calls, len(taken)) == (1, 1)
    assert len(caplog.records) == 1


def test_an_installed_consumer_looks_at_the_shape_before_the_date() -> None:
    yard = yard_with(Publisher())
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    message = Message(eta=eta, timelimit="ab")
    consumer_of(InstalledConsumer, yard, closed).create_task_handler()(message)
    assert yard.publisher.calls == 0
    assert [letter.code for letter in yard.posted] == ["malformed"]


@pytest.mark.parametrize("nesting", [1, 2])
def test_a_replacement_that_came_too_often_is_a_letter_though_it_has_begun_once(
    nesting: int,
) -> None:
    """Without a stamp, its place in the job's life is where the record saw it first."""
    yard = yard_with(Publisher())
    begin = partial(yard.records.attempts.begin, worker="w", job_type="t", queue="work")
    begin("job-1", None, holder="h1")
    assert begin("job-1", Stamp(0, nesting=nesting), holder="h2").seq == 1
    yard.records.attempts.lose("job-1", "h2", "killed")
    message = Message(replaced_task_nesting=nesting)
    message.delivery_info = {"routing_key": "work", "redelivered": True}
    for _ in range(SETTINGS.delivery_limit):
        yard.records.attempts.deliver("job-1")
    consumer_of(JobConsumer, yard, lambda *_: None).create_task_handler()(message)
    assert [letter.code for letter in yard.posted] == ["poison"]
    assert message.settlement == "acknowledged"
