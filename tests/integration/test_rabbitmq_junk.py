"""What any client can put into RabbitMQ: a letter with its bytes, and the worker goes on."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from amqp import Message

from servers import Servers
from support.rabbitmq import letters_of
from support.worker import Worker
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import Taskyard
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter
from taskyard.wire.lossless_json import unpack
from taskyard.wire.undecoded_mark import UNREAD

LATE = struct.pack(">HI", 0x2000, 11) + b"\x01tT" + b"\xff" * 8
NO_UTF8 = struct.pack(">H", 0x8000) + b"\x02\xff\xfe"
GARBLED = '[["é"], {}, {}]'.encode("utf-16-be")


class WithProperties(Message):  # type: ignore[misc]
    """A message whose properties are given as bytes."""

    given = b""

    def _serialize_properties(self) -> bytes:
        return self.given


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url(), broker_url=servers.rabbitmq_url())


def send(settings: Settings, message: Any) -> None:
    with connection(settings) as broker:
        channel = broker.default_channel
        channel.basic_publish_confirm(message, routing_key=settings.broker_name("exec"))


def letter_after(settings: Settings, worker: Worker) -> Letter:
    """The only letter, once the worker has run a sound job behind what it took."""
    with Taskyard(settings, catalogue()) as yard:
        assert yard.enqueue("raw_act", {"n": 1}).result(30) == {"n": 1}
    assert worker.running
    [letter] = letters_of(settings, 1, lambda: worker.log[-3000:])
    return letter


@pytest.mark.parametrize("properties", [LATE, NO_UTF8], ids=["a date beyond time", "no UTF-8"])
def test_properties_that_the_client_library_cannot_read_end_as_a_letter(
    settings: Settings, start_worker: Callable[..., Worker], properties: bytes
) -> None:
    worker = start_worker(queues=("exec",))
    worker.await_log(" ready.")
    message = WithProperties(b"\x00 any bytes")
    message.given = properties
    send(settings, message)
    letter = letter_after(settings, worker)
    assert letter.message.body == b"\x00 any bytes"
    assert unpack(letter.message.headers[UNREAD]) == properties
    assert "AMQP properties of the message cannot be decoded" in letter.error_message


def test_a_body_is_captured_in_the_bytes_that_came_whatever_it_says_of_them(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(queues=("exec",))
    worker.await_log(" ready.")
    headers = {"task": "exec_act", "id": str(uuid.uuid4())}
    kind = {"content_type": "application/json", "content_encoding": "utf-16"}
    send(settings, Message(GARBLED, application_headers=headers, **kind))
    assert letter_after(settings, worker).message.body == GARBLED


def test_a_retry_has_the_payload_of_the_first_attempt_in_its_own_encoding(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(queues=("exec",))
    worker.await_log(" ready.")
    body = json.dumps([[{"do": "fail", "value": "é"}], {}, {}], ensure_ascii=False).encode(
        "latin-1"
    )
    headers = {"task": "exec_act", "id": str(uuid.uuid4())}
    kind = {"content_type": "application/json", "content_encoding": "latin-1"}
    send(settings, Message(body, application_headers=headers, **kind))
    letter = letter_after(settings, worker)
    assert letter.message.body == body
    assert [note.outcome for note in letter.attempts] == ["retrying", "retrying", "dead_lettered"]
