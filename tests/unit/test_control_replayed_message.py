"""Edited payloads keep what hangs on the job."""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from support.letters import EMBED, make_message
from taskyard.control.replayed_message import Edit, captured, edited
from taskyard.errors import InvalidPayload, Refused


def test_an_edited_body_has_the_new_arguments_and_the_old_embed() -> None:
    message = edited(make_message("j"), Edit([{"n": 2}], {"k": 1}))
    assert json.loads(message.body) == [[{"n": 2}], {"k": 1}, EMBED]
    assert message.content_type == "application/json"


def test_headers_that_described_the_old_arguments_are_dropped_and_others_kept() -> None:
    old = {"id": "j", "task": "t", "argsrepr": "[1]", "kwargsrepr": "{}", "root_id": "r"}
    message = edited(make_message("j", headers=old), Edit([2]))
    assert message.headers == {"id": "j", "task": "t", "root_id": "r"}


@pytest.mark.parametrize(
    ("name", "compress"),
    [("application/x-gzip", zlib.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)],
)
def test_a_compressed_body_is_edited_and_not_compressed_again(
    name: str, compress: Callable[[bytes], bytes]
) -> None:
    plain = make_message("j").body
    headers = {"id": "j", "compression": name}
    message = edited(make_message("j", headers=headers, body=compress(plain)), Edit([2]))
    assert json.loads(message.body)[2] == EMBED
    assert "compression" not in message.headers


def test_a_body_that_unpacks_too_large_is_not_edited() -> None:
    headers = {"id": "j", "compression": "zlib"}
    message = make_message("j", headers=headers, body=zlib.compress(b"[" * 2_000))
    with pytest.raises(Refused, match="too large to be edited: its"):
        edited(message, Edit([2]), limit=1_999)


def test_a_body_that_is_not_compressed_as_it_says_is_refused() -> None:
    message = make_message("j", headers={"id": "j", "compression": "zlib"})
    with pytest.raises(Refused, match="an edit would lose its callbacks"):
        edited(message, Edit([2]))


@pytest.mark.parametrize("body", [b"\x80\x04pickle", b"{}", b"[1, 2]", b"\xff", b"[" * 10**5])
def test_an_edit_is_refused_where_callbacks_would_be_lost(body: bytes) -> None:
    with pytest.raises(Refused, match="an edit would lose its callbacks"):
        edited(make_message("j", body=body), Edit([2]))


@pytest.mark.parametrize("value", [float("nan"), object(), b"bytes"])
def test_an_edit_must_be_json(value: object) -> None:
    with pytest.raises(InvalidPayload, match="is not JSON"):
        Edit([value])


def test_an_edit_with_nul_is_refused_before_anything_is_stored() -> None:
    with pytest.raises(InvalidPayload, match="NUL"):
        Edit([{"text": "a\x00b"}])


def test_a_row_that_holds_no_message_is_refused() -> None:
    row = {"id": "x", "raw_envelope": b"junk", "mirror_error": "not a letter"}
    with pytest.raises(Refused, match="holds no message: not a letter"):
        captured(row)


@pytest.mark.parametrize(
    ("args", "kwargs", "called_with"),
    [
        (["", 7], {}, "2 positional arguments,"),
        ([""], {"cents": 9}, "1 positional argument and cents,"),
        ([], {"customer": ""}, "0 positional arguments and customer,"),
    ],
)
def test_a_payload_does_not_replace_the_arguments_of_a_task_that_is_called_otherwise(
    args: list[Any], kwargs: dict[str, Any], called_with: str
) -> None:
    message = make_message("j", body=json.dumps([args, kwargs, {}]).encode())
    with pytest.raises(Refused, match=called_with) as caught:
        edited(message, Edit([{"n": 2}], payload_only=True))
    assert "give every argument: --args '[...]' and --kwargs '{...}'" in str(caught.value)
    assert str(caught.value).endswith("See: taskyard dlq replay --help")
    assert json.loads(edited(message, Edit(["Ada"], {"cents": 9})).body)[0] == ["Ada"]


def test_a_payload_replaces_one_and_what_is_too_broken_to_be_called() -> None:
    for body in ([[1], {}, {}], ["broken", None, {}]):
        message = make_message("j", body=json.dumps(body).encode())
        assert json.loads(edited(message, Edit([2], payload_only=True)).body) == [[2], {}, {}]
