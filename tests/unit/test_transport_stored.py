"""Whatever lies in a list: read without harm, and told apart from messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from taskyard.transport.stored_messages import message_of, stored_parts, suffix_of

GOOD: dict[str, Any] = {
    "body": base64.b64encode(b"[[], {}, {}]").decode(),
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"id": "1", "task": "t"},
    "properties": {
        "body_encoding": "base64",
        "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": "q"},
    },
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def changed(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def test_a_message_keeps_everything_but_its_tag() -> None:
    read = message_of(json.dumps(GOOD).encode(), "owner:7", "q")
    assert read["properties"].pop("delivery_tag") == "owner:7"
    assert read == GOOD


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"{",
        b'{"body": "x", "prop',
        b"[]",
        b"null",
        b"17",
        b'"text"',
        b"\x80\x04\x95pickle",
        b"\xff\x00\xfe",
        b"[" * 100_000,
        b"{}",
        changed(headers=None),
        changed(headers=[]),
        changed(properties=None),
        changed(properties={}),
        changed(properties={"delivery_info": "q"}),
        changed(body=17),
        changed(body=["a"]),
        changed(body="a"),
        changed(properties={**GOOD["properties"], "body_encoding": "rot13"}),
        b"x" * 5_000_000,
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_junk_becomes_a_message_of_its_bytes_that_is_no_task(raw: bytes) -> None:
    message = Message(message_of(raw, "owner:7", "q"), channel=_Channel())
    assert message.body == raw
    assert "task" not in message.headers
    assert message.content_type == "application/octet-stream"
    assert message.delivery_info == {"exchange": "", "routing_key": "q"}
    assert message.delivery_tag == "owner:7"


@given(raw=st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_stop_the_reader(raw: bytes) -> None:
    message = Message(message_of(raw, "owner:7", "q"), channel=_Channel())
    assert message.body == raw


@given(extra=st.dictionaries(st.text(), ANY_JSON, max_size=3), queue=st.text(min_size=1))
def test_a_stored_object_is_found_again_with_its_queue(extra: dict[str, Any], queue: str) -> None:
    raw = json.dumps(extra).encode()
    stored = b"[" + raw + suffix_of(queue).encode()
    message, exchange, routing_key = stored_parts(stored)
    assert (json.dumps(message).encode(), exchange, routing_key) == (raw, "", queue)


@pytest.mark.parametrize("raw", [b'{"a": 1', b"{\xff}", b'{"a": 1}, "", "other"', b'{}], "", "x"]'])
def test_a_stored_object_that_is_broken_is_found_again_byte_by_byte(raw: bytes) -> None:
    stored = b"[" + raw + suffix_of("q").encode()
    assert stored_parts(stored) == (raw, "", "q")


def test_what_kombu_stored_is_read_with_exchange_and_routing_key() -> None:
    stored = json.dumps([GOOD, "orders", "new"]).encode()
    assert stored_parts(stored) == (GOOD, "orders", "new")


class _Channel:
    """As much of a channel as a message asks for."""

    def decode_body(self, body: Any, encoding: str | None = None) -> Any:
        return base64.b64decode(body) if encoding == "base64" else body
