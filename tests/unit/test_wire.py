"""What travels: the stamp, the letter's envelope, its id and its routing key."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskyard.jobs.retry_policy import Category
from taskyard.wire import HEADER, Letter, RawMessage, Stamp, letter_id
from taskyard.wire.letter_envelope import AttemptNote

COUNTS = st.integers(0, 2**63)
# What a JSON body can hold; a number that is none would come back as null.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
TIMES = st.integers(0, 2**53 - 1)
STEPS = st.integers(0, 2**30 - 1)
STAMPS = st.builds(
    Stamp,
    epoch=TIMES,
    generation=STEPS,
    seq=STEPS,
    sent_us=st.none() | TIMES,
    policy=st.none() | OBJECTS,
)
MESSAGES = st.builds(
    RawMessage,
    body=st.binary(),
    headers=OBJECTS,
    properties=OBJECTS,
    content_type=st.none() | st.text(),
    content_encoding=st.none() | st.text(),
)
NOTES = st.builds(
    AttemptNote,
    attempt=COUNTS,
    worker=st.text(),
    started_us=COUNTS,
    ended_us=COUNTS,
    outcome=st.text(),
    code=st.none() | st.text(),
    error=st.none() | st.text(),
)
LETTERS = st.builds(
    Letter,
    letter_id=st.uuids().map(str),
    job_id=st.text(),
    epoch=COUNTS,
    generation=COUNTS,
    version=COUNTS,
    job_type=st.text(),
    queue=st.text(),
    priority=st.none() | st.integers(0, 255),
    message=MESSAGES,
    args=st.none() | st.lists(JSON, max_size=3),
    kwargs=st.none() | OBJECTS,
    reply_to=st.none() | st.text(),
    category=st.sampled_from(Category),
    code=st.text(),
    error_class=st.text(),
    error_message=st.text(),
    traceback=st.text(),
    attempts=st.lists(NOTES, max_size=2),
    first_failure_us=COUNTS,
    last_failure_us=COUNTS,
    replay_eligible=st.booleans(),
    escalate_to=st.none() | st.text(),
    worker=st.none() | st.text(),
    evidence=OBJECTS,
)


def some_letter(**facts: Any) -> Letter:
    defaults: dict[str, Any] = {
        "letter_id": letter_id("job", 1, 0),
        "job_id": "job",
        "epoch": 1,
        "generation": 0,
        "version": 1,
        "job_type": "pack.tasks.add",
        "queue": "plan",
        "message": RawMessage(body=b""),
        "category": Category.POISON,
        "code": "poison",
        "error_class": "PoisonJob",
        "error_message": "",
        "first_failure_us": 1,
        "last_failure_us": 1,
        "replay_eligible": True,
    }
    return Letter(**{**defaults, **facts})


@given(st.binary())
def test_every_byte_of_a_captured_body_survives(body: bytes) -> None:
    letter = some_letter(message=RawMessage(body=body))
    assert Letter.parse(letter.encode()).message.body == body
    assert Letter.parse(letter.encode().decode("utf-8")).message.body == body


@given(LETTERS)
def test_a_letter_survives_its_journey(letter: Letter) -> None:
    assert Letter.parse(letter.encode()) == letter
    assert Letter.parse(letter.encode()).encode() == letter.encode()


def test_a_letter_of_a_later_version_with_more_facts_can_be_read() -> None:
    letter = some_letter()
    newer = letter.encode().replace(b"{", b'{"fact_of_tomorrow": 1,', 1)
    assert Letter.parse(newer) == letter


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"\xff", b'{"letter_id": "x"}'])
def test_what_is_no_letter_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError, match="validation error"):
        Letter.parse(body)


def test_a_body_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ValidationError, match="body"):
        RawMessage.model_validate({"body": "not base64!"})


@given(st.text(), COUNTS, COUNTS)
def test_a_letters_id_depends_on_its_job_life_and_generation_alone(
    job_id: str, epoch: int, generation: int
) -> None:
    found = letter_id(job_id, epoch, generation)
    assert found == letter_id(job_id, epoch, generation)
    assert uuid.UUID(found).version == 5
    assert found != letter_id(job_id, epoch, generation + 1)
    assert found != letter_id(job_id, epoch + 1, generation)
    assert found != letter_id(job_id + "x", epoch, generation)


def test_a_letters_id_is_the_same_in_every_release() -> None:
    assert letter_id("job", 1, 0) == "4290f6cc-993d-583b-a088-3438e225c215"


@given(st.text(), st.text(), st.sampled_from(Category))
def test_a_routing_key_has_three_words_in_two_hundred_bytes(
    queue: str, job_type: str, category: Category
) -> None:
    key = some_letter(queue=queue, job_type=job_type, category=category).routing_key()
    assert len(key.encode()) <= 200
    words = key.split(".")
    assert len(words) == 3
    assert words[2] == category
    assert re.sub(r"[.\r\n]", ":", queue).startswith(words[0])
    assert re.sub(r"[.\r\n]", ":", job_type).startswith(words[1])
    # kombu's expression for the topic `#`, by which Redis finds the letters' queue.
    assert re.match("^.*?$", key)


@given(st.sampled_from("aé漢🙂."), st.integers(100, 400), st.sampled_from(Category))
def test_a_long_name_is_cut_between_letters(letter: str, length: int, category: Category) -> None:
    key = some_letter(queue=letter * length, job_type=letter * length, category=category)
    assert len(key.routing_key().encode()) <= 200
    assert key.routing_key().count(".") == 2


def test_a_routing_key_reads_as_queue_type_and_category() -> None:
    assert some_letter().routing_key() == "plan.pack:tasks:add.poison"


@given(STAMPS)
def test_a_stamp_survives_its_journey(stamp: Stamp) -> None:
    assert Stamp.read({HEADER: stamp.header()}) == stamp


def test_a_message_without_our_header_has_no_stamp() -> None:
    assert Stamp.read({}) is None
    assert Stamp.read({HEADER: None}) is None


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("text", "header 'taskyard' must be a mapping, got 'text'"),
        ({"v": 2}, "header 'taskyard' has schema 2, this version reads 1"),
        ({}, "header 'taskyard' has schema None, this version reads 1"),
        ({"v": 1}, "header 'taskyard': epoch must be a whole number, 0 or more, got None"),
        (
            {"v": 1, "epoch": 1, "generation": True, "seq": 0},
            "header 'taskyard': generation must be a whole number, 0 or more, got True",
        ),
        (
            {"v": 1, "epoch": 1, "generation": 0, "seq": -1},
            "header 'taskyard': seq must be a whole number, 0 or more, got -1",
        ),
        (
            {"v": 1, "epoch": 1, "generation": 0, "seq": 0, "sent_us": 1.5},
            "header 'taskyard': sent_us must be a whole number, 0 or more, got 1.5",
        ),
        (
            {"v": 1, "epoch": 1, "generation": 0, "seq": 0, "policy": []},
            "header 'taskyard': policy must be a mapping, got []",
        ),
    ],
)
def test_a_broken_stamp_is_refused_with_field_and_value(header: object, words: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole message is compared
        Stamp.read({HEADER: header})
    assert str(refusal.value) == words


@given(st.one_of(JSON, OBJECTS.map(lambda raw: {"v": 1, **raw})))
def test_any_header_gives_a_stamp_none_or_a_value_error(header: object) -> None:
    stamp: Stamp | None = None
    with suppress(ValueError):
        stamp = Stamp.read({HEADER: header})
    assert stamp is None or Stamp.read({HEADER: stamp.header()}) == stamp


@given(STAMPS, STEPS, TIMES)
def test_a_moved_stamp_stays_in_its_life(stamp: Stamp, seq: int, sent_us: int) -> None:
    moved = stamp.moved(seq=seq, sent_us=sent_us)
    assert (moved.epoch, moved.generation, moved.policy) == (
        stamp.epoch,
        stamp.generation,
        stamp.policy,
    )
    assert (moved.seq, moved.sent_us) == (seq, sent_us)
    assert stamp.moved(generation=0, seq=0, sent_us=0).generation == 0
