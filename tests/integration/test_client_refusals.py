"""What the client refuses, word for word. Its server does not exist, so nothing was sent before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from support.yard import catalogue, fresh_settings
from taskyard.client import EnqueueRequest, Taskyard
from taskyard.errors import (
    InvalidPayload,
    InvalidSettings,
    MissingSetting,
    PayloadTooLarge,
    ServerUnreachable,
    UnknownJobType,
    UnknownPriority,
    UnknownQueue,
)
from taskyard.jobs import JobType
from taskyard.settings import Settings


class Order(BaseModel):
    number: int
    password: str = ""


ORDER = JobType(name="order", queue="exec", payload_model=f"{__name__}:Order")


@pytest.fixture(scope="module")
def yard() -> Iterator[Taskyard]:
    settings = fresh_settings("redis://127.0.0.1:1/0", max_payload_bytes=100)
    with Taskyard(settings, catalogue().with_type(ORDER)) as client:
        yield client


def cyclic() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


def deep() -> Any:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    return nested


NOT_JSON = ". Pass dicts, lists, texts, finite numbers, booleans and None, or a pydantic model"
REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown type that resembles one": (
        {"job_type": "exec_akt"},
        UnknownJobType,
        "there is no job type 'exec_akt'. Did you mean 'exec_act'? Known: ",
    ),
    "an unknown type that resembles none": (
        {"job_type": "zzz"},
        UnknownJobType,
        "there is no job type 'zzz'. Known: ",
    ),
    "an unknown queue": (
        {"queue": "exek"},
        UnknownQueue,
        (
            "there is no queue 'exek'. Known: exec, locator, ops, plan. "
            "Add one under [queues] in taskyard.toml; for settings created in code, as a "
            "test's Yard has, use Settings(queues=...)."
        ),
    ),
    "a priority above the highest": (
        {"priority": 6},
        UnknownPriority,
        "queue 'exec' has priorities 1 to 5 (5 is the most urgent), got 6",
    ),
    "a priority above that of a smaller queue": (
        {"queue": "locator", "priority": 4},
        UnknownPriority,
        "queue 'locator' has priorities 1 to 3 (3 is the most urgent), got 4",
    ),
    "priority zero": (
        {"priority": 0},
        UnknownPriority,
        "queue 'exec' has priorities 1 to 5 (5 is the most urgent), got 0",
    ),
    "a priority that is a word": (
        {"priority": "high"},
        UnknownPriority,
        "queue 'exec' has priorities 1 to 5 (5 is the most urgent), got 'high'",
    ),
    "a priority that is a truth": (
        {"priority": True},
        UnknownPriority,
        "queue 'exec' has priorities 1 to 5 (5 is the most urgent), got True",
    ),
    "a payload over the limit": (
        {"payload": {"a": "x" * 100}},
        PayloadTooLarge,
        (
            "the payload of 'exec_act' has 109 bytes, the limit is 100. Store the data and pass a "
            "reference, or raise TASKYARD_MAX_PAYLOAD_BYTES"
        ),
    ),
    "a set": (
        {"payload": {"a": {1}}},
        InvalidPayload,
        "the payload of 'exec_act' is not JSON: Object of type set is not JSON serializable"
        + NOT_JSON,
    ),
    "no number": (
        {"payload": {"a": math.nan}},
        InvalidPayload,
        "the payload of 'exec_act' is not JSON: Out of range float values are not JSON compliant",
    ),
    "a payload that holds itself": (
        {"payload": cyclic()},
        InvalidPayload,
        "the payload of 'exec_act' is not JSON: Circular reference detected" + NOT_JSON,
    ),
    "a payload nested without end": (
        {"payload": deep()},
        InvalidPayload,
        "the payload of 'exec_act' is not JSON: maximum recursion depth exceeded",
    ),
    "a payload that its model refuses": (
        {"job_type": "order", "payload": {"number": "many"}},
        InvalidPayload,
        (
            "the payload does not fit job type 'order':\n"
            "  number: Input should be a valid integer, unable to parse string as an integer, "
            "got: 'many'"
        ),
    ),
    "a secret that its model refuses": (
        {"job_type": "order", "payload": {"number": 1, "password": 12345}},
        InvalidPayload,
        (
            "the payload does not fit job type 'order':\n"
            "  password: Input should be a valid string, got: '[redacted]'"
        ),
    ),
    "a payload that lacks a field": (
        {"job_type": "order", "payload": {"password": "hunter2"}},
        InvalidPayload,
        (
            "the payload does not fit job type 'order':\n"
            "  number: this required field is missing; the payload has field 'password'"
        ),
    ),
    "a text where the model wants a mapping": (
        {"job_type": "order", "payload": "number 7"},
        InvalidPayload,
        "the payload of 'order' must be a mapping or its model, got 'number 7'",
    ),
    "a policy field that is misspelt": (
        {"policy": {"max_retry": 1}},
        InvalidPayload,
        "policy: there is no field 'max_retry'; did you mean 'max_retries'?",
    ),
    "a policy field that nobody knows": (
        {"policy": {"colour": 1}},
        InvalidPayload,
        "policy: there is no field 'colour'; known: max_retries, ",
    ),
    "a policy value of the wrong kind": (
        {"policy": {"max_retries": "often"}},
        InvalidPayload,
        (
            "policy: max_retries: Input should be a valid integer, unable to parse string as an "
            "integer, got: 'often'"
        ),
    ),
    "a policy that contradicts its type's": (
        {"job_type": "plan_act", "policy": {"max_delay_ms": 5}},
        InvalidPayload,
        "policy: max_delay_ms (5) is below base_delay_ms (1000): raise max_delay_ms or lower",
    ),
    "a policy that is no mapping": (
        {"policy": ["max_retries"]},
        InvalidPayload,
        "policy must be a mapping of policy fields, got ['max_retries']",
    ),
    "an expiry without a time zone": (
        {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001 - the point of the case
        InvalidPayload,
        "expires must have a time zone, got datetime.datetime(2030, 1, 1, 0, 0)",
    ),
    "an expiry in the past": (
        {"expires": -1},
        InvalidPayload,
        "expires must be seconds or a timedelta, 0 or more, got -1",
    ),
    "an expiry that is a word": (
        {"expires": "soon"},
        InvalidPayload,
        "expires must be seconds or a timedelta, 0 or more, got 'soon'",
    ),
    "a countdown that is no number": (
        {"countdown": math.nan},
        InvalidPayload,
        "countdown must be seconds or a timedelta, 0 or more, got nan",
    ),
    "a countdown of a century": (
        {"countdown": timedelta(days=36_500)},
        InvalidPayload,
        "countdown must be seconds or a timedelta, 0 or more, got datetime.timedelta(days=36500)",
    ),
    "an empty key": (
        {"idempotency_key": ""},
        InvalidPayload,
        "idempotency_key must be a text of 1 to 512 characters, got ''",
    ),
    "a key that is a number": (
        {"idempotency_key": 7},
        InvalidPayload,
        "idempotency_key must be a text of 1 to 512 characters, got 7",
    ),
    "uniqueness without a key": (
        {"unique_for": 60},
        InvalidPayload,
        "unique_for is given without an idempotency_key. Pass an idempotency_key too",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_enqueue_is_refused_before_anything_is_sent(yard: Taskyard, case: str) -> None:
    options, error, message = REFUSALS[case]
    with pytest.raises(error) as raised:
        yard.enqueue(**{"job_type": "exec_act", "payload": {}, **options})
    assert type(raised.value) is error
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("case", REFUSALS)
def test_many_are_refused_in_the_same_words(yard: Taskyard, case: str) -> None:
    options, error, message = REFUSALS[case]
    with pytest.raises(error) as raised:
        yard.enqueue_many([EnqueueRequest(**{"job_type": "exec_act", "payload": {}, **options})])
    assert str(raised.value).startswith(message)


def test_an_unknown_type_lists_all_that_are_known(yard: Taskyard) -> None:
    with pytest.raises(UnknownJobType, match=", ".join(sorted(yard.catalogue))):
        yard.enqueue("zzz", {})


GOOD: list[dict[str, Any]] = [
    {"priority": 5},
    {"queue": "locator", "priority": 3},
    {"payload": Order(number=1), "job_type": "order"},
    {"policy": {"max_retries": 0}},
    {"policy": {"max_delay_ms": 5}},
    {"countdown": 0, "expires": 0},
    {"idempotency_key": "x" * 512, "unique_for": timedelta(days=1)},
]


@pytest.mark.parametrize("options", GOOD)
def test_what_is_right_gets_as_far_as_the_server(yard: Taskyard, options: dict[str, Any]) -> None:
    with pytest.raises(ServerUnreachable):
        yard.enqueue(**{"job_type": "exec_act", "payload": {}, **options})


def test_a_client_without_urls_names_the_first_variable_that_is_missing() -> None:
    with pytest.raises(MissingSetting) as raised:
        Taskyard(Settings())
    assert str(raised.value) == (
        "TASKYARD_REDIS_URL is not set: it names the Redis that holds the job records. "
        "Set it, or start everything on this machine with: taskyard up"
    )
    with pytest.raises(MissingSetting, match="TASKYARD_BROKER_URL is not set"):
        Taskyard(Settings(redis_url="redis://127.0.0.1:1/0"))


def test_a_broker_of_another_kind_is_refused_with_those_that_work() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", broker_url="kafka://127.0.0.1")
    with pytest.raises(InvalidSettings, match=r"expected .*redis://.* got kafka://"):
        Taskyard(settings)
