"""The message that is filled in is, byte for byte, the one that Celery would build."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery

from taskyard.broker.kombu_envelope import encode
from taskyard.client import EnqueueRequest
from taskyard.client.check_request import check
from taskyard.client.job_ids import new_call_id, new_job_id
from taskyard.client.render_message import MessageTemplate, first_message
from taskyard.jobs import Catalogue, JobType
from taskyard.settings import Settings
from taskyard.wire import HEADER, Stamp

TYPE = JobType(name="100% of 'it' \"all\"", queue="exec")
KNOWN = Catalogue({TYPE.name: TYPE})
EPOCH = 1_700_000_000_000_001
PAYLOADS: list[Any] = [
    {},
    None,
    [1, 2.5, True, None, "a"],
    {"text": "%s %(id)s %% @@id@@ \"@@body@@\" 'quoted' \\ \x00 \u2028 ü 漢 🙂"},
    {"password": "hunter2", "nested": [{"url": "redis://:hunter2@host"}]},
    {"tuple": (1, 2), 1: "a number as a key"},
    {"long": "x" * 5_000},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"expires": datetime(2030, 1, 1, tzinfo=UTC)},
    {"reply_to": 'queue-"7" 100%'},
    {"policy": {"max_retries": 0}},
]


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    made = Celery("t", broker="memory://", set_as_current=False)
    yield made
    made.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload)[:30])
def test_a_filled_template_is_the_message_that_celery_builds(
    app: Celery, payload: Any, options: dict[str, Any]
) -> None:
    request = EnqueueRequest(job_type=TYPE.name, payload=payload, **options)
    checked = check(request, Settings(), KNOWN)
    head, tail = MessageTemplate(app, TYPE.name, "exec", 3).fill(checked)
    message = first_message(app, checked)
    headers = {**message.headers, HEADER: Stamp(EPOCH, policy=checked.policy).header()}
    built = encode(message, queue="exec", step=3, headers=headers, tag=checked.job_id)
    assert f"{head}{EPOCH}{tail}" == built


def test_nothing_secret_is_shown_of_the_arguments(app: Celery) -> None:
    payload = {"token": "hunter2", "url": "redis://:hunter2@host", "plain": "shown"}
    checked = check(EnqueueRequest(job_type=TYPE.name, payload=payload), Settings(), KNOWN)
    head, _ = MessageTemplate(app, TYPE.name, "exec", 0).fill(checked)
    assert "hunter2" not in head
    shown = json.loads(f"{head}0}}}}}}")["headers"]["argsrepr"]
    assert (
        shown == "({'token': '[redacted]', 'url': 'redis://:[redacted]@host', 'plain': 'shown'},)"
    )


def test_job_ids_are_random_uuids() -> None:
    ids = [new_job_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    parsed = [uuid.UUID(text) for text in ids]
    assert [str(each) for each in parsed] == ids
    assert {each.version for each in parsed} == {4}
    assert {each.variant for each in parsed} == {uuid.RFC_4122}
    assert {text[19] for text in ids} == set("89ab")


def test_call_ids_differ() -> None:
    assert len({new_call_id() for _ in range(2_000)}) == 2_000
