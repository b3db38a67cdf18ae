"""What went back to a quorum queue too often is published anew, before RabbitMQ drops it."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.broker import AmqpPublisher
from taskyard.engine.quorum_delivery_limit import HELD_S, RENEW_AT, Returns
from taskyard.engine.strip_credentials import credential_of, take_credential
from taskyard.errors import PublishFailed
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage


class Publisher(AmqpPublisher):
    """Fails as often as it is told, then notes what is published."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(Settings(broker_url="amqp://nowhere//"))
        self.failures, self.sent = failures, list[RawMessage]()

    def renew(self, message: RawMessage, *, job_id: str, queue: str) -> None:
        assert (job_id, queue) == ("job-1", "work")
        if self.failures:
            self.failures -= 1
            raise PublishFailed("the broker is blocked")
        self.sent.append(message)


class Message:
    """A kombu message as far as it can go back."""

    content_type, content_encoding = "application/json", "utf-8"
    body = b"[[], {}, {}]"

    def __init__(self, **headers: Any) -> None:
        self.headers, self.settlement = {"id": "job-1", **headers}, ""
        self.properties: dict[str, Any] = {"priority": 3}
        self.channel = SimpleNamespace(is_open=True)
        self.payload: Any = [[], {}, {}]

    def ack_log_error(self, *_: Any) -> None:
        self.settlement = "acknowledged"

    def reject_log_error(self, *_: Any, requeue: bool = False) -> None:
        self.settlement = "back" if requeue else "dropped"


Timer = list[tuple[float, Callable[[], None]]]


@pytest.fixture
def timer() -> Timer:
    """What was put off."""
    return []


def returns(publisher: object, timer: Timer) -> Returns:
    yard: Any = SimpleNamespace(publisher=publisher)
    return Returns(yard, lambda seconds, act: timer.append((seconds, act)))


def often(**headers: Any) -> Message:
    return Message(**{"x-delivery-count": RENEW_AT, **headers})


def test_a_message_that_came_back_often_is_published_then_acknowledged(timer: Timer) -> None:
    publisher, message = Publisher(), often()
    returns(publisher, timer).watch(message, "work")
    message.reject_log_error(None, (), requeue=True)
    assert [sent.body for sent in publisher.sent] == [message.body]
    assert message.settlement == "acknowledged"


def test_an_operators_message_keeps_its_credential_for_its_next_delivery(timer: Timer) -> None:
    publisher, message = Publisher(), often()
    message.body = b'[[], {"taskyard_credential": "v1.signed"}, {}]'
    message.payload = json.loads(message.body)
    came = message.body
    take_credential(message)
    assert credential_of(message) == "v1.signed"
    assert b"v1.signed" not in message.body
    returns(publisher, timer).watch(message, "work")
    message.reject_log_error(None, (), requeue=True)
    assert [sent.body for sent in publisher.sent] == [came]


def test_it_is_held_until_it_can_be_published(timer: Timer) -> None:
    publisher, message = Publisher(failures=2), often()
    returns(publisher, timer).watch(message, "work")
    message.reject_log_error(None, (), requeue=True)
    for _ in range(2):
        assert message.settlement == ""
        ((seconds, again),) = timer
        timer.clear()
        assert seconds == HELD_S
        again()
    assert (len(publisher.sent), message.settlement, timer) == (1, "acknowledged", [])


def test_what_is_held_is_the_brokers_again_when_the_connection_is_lost(timer: Timer) -> None:
    publisher, message = Publisher(failures=1), often()
    returns(publisher, timer).watch(message, "work")
    message.reject_log_error(None, (), requeue=True)
    message.channel.is_open = False
    ((_, again),) = timer
    again()
    assert (publisher.sent, message.settlement, len(timer)) == ([], "", 1)


def test_what_is_rejected_for_good_stays_rejected(timer: Timer) -> None:
    message = often()
    returns(Publisher(), timer).watch(message, "work")
    message.reject_log_error(None, (), requeue=False)
    assert message.settlement == "dropped"


@pytest.mark.parametrize(
    ("message", "queue", "publisher"),
    [
        (Message(), "work", Publisher()),
        (Message(**{"x-delivery-count": RENEW_AT - 1}), "work", Publisher()),
        (Message(**{"x-delivery-count": "many"}), "work", Publisher()),
        (often(), None, Publisher()),
        (often(), "work", object()),
    ],
    ids=["no count", "too few", "no number", "no queue", "no RabbitMQ"],
)
def test_others_go_back_as_ever(
    message: Message, queue: str | None, publisher: object, timer: Timer
) -> None:
    returns(publisher, timer).watch(message, queue)
    message.reject_log_error(None, (), requeue=True)
    assert message.settlement == "back"
