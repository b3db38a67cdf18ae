"""The credential leaves an operator's message on receipt; what is published again keeps it."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from kombu import Message

from taskyard.deadletters import build_letter
from taskyard.engine.read_message import raw_message
from taskyard.engine.strip_credentials import (
    credential_of,
    message_to_publish,
    take_credential,
)
from taskyard.records import Record
from taskyard.wire import RawMessage
from taskyard.wire.credential_argument import CREDENTIAL, without_credential
from taskyard.wire.decoded_body import Decoded
from taskyard.wire.redaction import MASK, redact, redact_text

TEXT = f"v1.0123456789abcdef.{'eyJhdWQi' * 40}.{'Ab-_' * 21}Ab"
KWARGS = {"letter_id": "abc", CREDENTIAL: TEXT, "reason": "The server is back, ticket 12"}
REST = {"letter_id": "abc", "reason": "The server is back, ticket 12"}
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def message(body: object = ([], KWARGS, EMBED), **headers: Any) -> Message:
    return Message(
        body=json.dumps(body).encode(),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": "taskyard.ops.replay", "id": "m1", "kwargsrepr": repr(KWARGS), **headers},
        properties={"application_headers": {"kwargsrepr": repr(KWARGS)}, "priority": 5},
        accept={"application/json"},
    )


def test_the_credential_moves_from_the_body_to_a_mark():
    came = message()
    take_credential(came)
    assert credential_of(came) == TEXT
    assert json.loads(came.body) == [[], REST, EMBED] == came.payload
    assert came.headers["kwargsrepr"] == repr(REST)
    assert TEXT not in raw_message(came).model_dump_json()


def test_what_is_published_again_is_the_message_as_it_came():
    came = message()
    before = raw_message(came)
    take_credential(came)
    assert message_to_publish(came) == before


def test_a_compressed_message_loses_it_too():
    body = zlib.compress(json.dumps([[], KWARGS, EMBED]).encode())
    came = Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": "taskyard.ops.replay", "id": "m1", "compression": "application/x-gzip"},
        accept={"application/json"},
    )
    take_credential(came)
    assert credential_of(came) == TEXT
    assert "compression" not in raw_message(came).headers
    assert json.loads(raw_message(came).body)[1] == REST


def test_a_message_of_celerys_first_protocol_loses_it_too():
    came = message({"task": "taskyard.ops.replay", "id": "m1", "args": [], "kwargs": KWARGS})
    take_credential(came)
    assert credential_of(came) == TEXT
    assert json.loads(came.body)["kwargs"] == REST


@pytest.mark.parametrize("value", [7, None, ["x"], {"a": TEXT}])
def test_a_credential_that_is_no_text_counts_as_a_malformed_one(value: object):
    came = message(([], {CREDENTIAL: value}, EMBED))
    take_credential(came)
    assert credential_of(came) == ""
    assert CREDENTIAL.encode() not in came.body


@pytest.mark.parametrize(
    "body", [([], REST, EMBED), ([CREDENTIAL], {}, EMBED), {"x": CREDENTIAL}, [CREDENTIAL], "x"]
)
def test_a_message_without_one_stays_as_it_is(body: object):
    came = message(body)
    before = raw_message(came)
    take_credential(came)
    assert credential_of(came) is None
    assert raw_message(came) == before == message_to_publish(came)


@pytest.mark.parametrize("packed", [False, True])
def test_no_letter_holds_a_credential_that_could_not_be_taken_out(packed: bool):
    body = f"no JSON, but {TEXT} in it".encode()
    headers = {"kwargsrepr": repr(KWARGS), "other": 3}
    if packed:
        body, headers = zlib.compress(body), {**headers, "compression": "application/x-gzip"}
    letter = build_letter(
        Record("m1", {"state": "dead_lettered", "epoch": "1", "cause": "{}"}),
        RawMessage(body=body, headers=headers, properties={"application_headers": headers}),
    )
    assert letter.message.body == b"no JSON, but [redacted] in it"
    assert TEXT not in letter.encode().decode()
    assert letter.message.headers["other"] == 3


def test_a_letter_of_another_message_is_byte_exact():
    for body in (b"v1.2 of the API", b"\xff\x00v1.", zlib.compress(b"v1.")):
        raw = RawMessage(body=body, headers={"compression": "application/x-gzip"})
        assert without_credential(raw) is raw


def test_no_log_shows_a_credential_under_whatever_name():
    for text in (f"received {TEXT}", f"cut off {TEXT[:200]}", f"x{TEXT}y"):
        assert TEXT[:180] not in redact_text(text)
    assert redact({"a": [TEXT]}) == {"a": ["[redacted]"]}
    assert redact_text("the API v1.2 of 0123456789abcdef") == "the API v1.2 of 0123456789abcdef"


ESCAPED = json.dumps([[], KWARGS, EMBED]).replace("v1.", "v1\\u002e").replace("_cre", "\\u005Fcre")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp500"])
@pytest.mark.parametrize("text", [ESCAPED, json.dumps([[], KWARGS, EMBED])])
def test_a_credential_in_another_spelling_is_taken_and_is_in_no_letter(text: str, encoding: str):
    came = message()
    came.body, came.content_encoding, came.headers = text.encode(encoding), encoding, {}
    came.properties = {}
    letter = without_credential(raw_message(came))
    shown = letter.body.decode(encoding)
    assert MASK in shown
    assert TEXT[30:90] not in shown
    assert json.loads(shown)[1]["letter_id"] == "abc"
    # As the consumer hands it on.
    came.body = Decoded.of(text.encode(encoding), encoding)
    take_credential(came)
    assert credential_of(came) == TEXT
    assert json.loads(raw_message(came).body)[1] == REST
