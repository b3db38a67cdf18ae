"""AMQP properties that py-amqp cannot read: the message arrives, and nobody ends by it."""

from __future__ import annotations

import pickle
from struct import pack
from typing import Any

import pytest
from kombu import Connection

from taskyard.broker import read_any_header
from taskyard.wire.decoded_body import Decoded
from taskyard.wire.undecoded_mark import UNREAD

DELIVER = pack(">HH", 60, 60)
HEADERS, TEXT = 0x2000, 0x8000


def table(content: bytes) -> bytes:
    return pack(">HI", HEADERS, len(content)) + content


def nested(levels: int) -> bytes:
    content = b""
    for _level in range(levels):
        content = b"\x01aF" + pack(">I", len(content)) + content
    return content


UNREADABLE = {
    "a text that is not UTF-8": pack(">H", TEXT) + b"\x02\xff\xfe",
    "a date that no calendar has": table(b"\x01tT" + b"\xff" * 8),
    "a year after the last": table(b"\x01tT" + pack(">Q", 2**40)),
    "an unknown type": table(b"\x01tz"),
    "a table nested too deep": table(nested(5_000)),
    "a table that ends early": table(b"\x01tT\x00"),
}


def handler(taken: list[Any]) -> Any:
    connection = Connection("amqp://")
    read_any_header(connection)
    make = connection.transport_options["frame_handler"]

    class Counting:
        bytes_recv, channels = 0, None

    return make(Counting(), lambda *frame: taken.append(frame[-1]))


def give(on_frame: Any, properties: bytes, body: bytes) -> None:
    on_frame((1, 1, DELIVER))
    on_frame((2, 1, pack(">HxxQ", 60, len(body)) + properties))
    if body:
        on_frame((3, 1, body))


@pytest.mark.parametrize("body", [b"", b"[[], {}, {}]"])
@pytest.mark.parametrize("properties", UNREADABLE.values(), ids=UNREADABLE)
def test_properties_that_cannot_be_read_arrive_as_bytes(properties: bytes, body: bytes) -> None:
    taken: list[Any] = []
    on_frame = handler(taken)
    give(on_frame, properties, body)
    give(on_frame, pack(">H", 0), b"the next message")
    first, second = taken
    assert first.properties["application_headers"] == {UNREAD: properties}
    assert first.properties["content_type"] == "application/octet-stream"
    assert (first.body or b"", second.body) == (body, b"the next message")


def test_properties_that_can_be_read_are_left_as_they_are() -> None:
    taken: list[Any] = []
    give(handler(taken), table(b"\x01ct\x01"), b"x")
    assert taken[0].properties == {"application_headers": {"c": True}}


def test_a_consumers_own_error_is_not_taken_for_the_headers() -> None:
    def consume(*_: Any) -> None:
        raise ValueError("the consumer's own")

    connection = Connection("amqp://")
    read_any_header(connection)
    on_frame = connection.transport_options["frame_handler"](
        type("C", (), {"bytes_recv": 0, "channels": None}), consume
    )
    with pytest.raises(ValueError, match="the consumer's own"):
        give(on_frame, pack(">H", 0), b"")


def test_another_broker_is_left_alone() -> None:
    connection = Connection("memory://")
    read_any_header(connection)
    assert not connection.transport_options


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8"])
def test_a_decoded_body_knows_its_bytes_and_travels_as_plain_text(encoding: str) -> None:
    came = "é".encode("utf-16-le" if encoding == "utf-16" else encoding)
    body = Decoded.of(came, encoding)
    assert (body, body.came) == ("é", came)
    assert type(pickle.loads(pickle.dumps(body))) is str  # noqa: S301 - its own
