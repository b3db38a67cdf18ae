"""Messages that no job's record stands for, without an id or with another job's: none is lost."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kombu import Producer

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_fixtures, legacy_on
from support.rabbitmq import take_letters
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.broker import connection
from taskyard.control.replayed_message import for_job
from taskyard.install import AnyQueuePublisher
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire.letter_envelope import Letter
from taskyard.wire.stamp_header import Stamp

app, tasks = legacy_fixtures("protect")

BODY = json.dumps([[1, 2], {}, {}]).encode()


def letters_with(legacy: Legacy, mark: str, count: int) -> list[Letter]:
    """The letters whose message has `mark` in a header, once there are `count`."""

    def found() -> list[Letter]:
        return [x for x in legacy.at_broker.letters() if x.message.headers.get("mark") == mark]

    eventually(lambda: len(found()) >= count, f"{count} letters", why=legacy.logs)
    return found()


def flushed(legacy: Legacy, tasks: Any) -> None:
    """A sound job behind all that was pushed has run."""
    assert tasks.add.delay(1, 2).get(timeout=SOON_S) == 3


@pytest.mark.parametrize("headers", [{"task": "legacy.add"}, {}, {"task": "legacy.add", "id": ""}])
def test_equal_messages_without_an_id_are_as_many_letters(
    app: Legacy, tasks: Any, headers: dict[str, Any]
) -> None:
    mark = uuid.uuid4().hex
    for _ in range(3):
        app.at_broker.push(f"{app.prefix}.work", {**headers, "mark": mark}, BODY)
    flushed(app, tasks)
    letters = letters_with(app, mark, 3)
    assert len({letter.letter_id for letter in letters}) == len(letters) == 3
    assert len({letter.job_id for letter in letters}) == 3
    assert all(letter.message.body == BODY for letter in letters)
    assert not any("possibly_repeated" in letter.evidence for letter in letters)


@pytest.mark.parametrize("first", ["completed", "dead_lettered"])
def test_a_task_that_uses_the_id_of_another_leaves_a_letter_and_does_not_run(
    app: Legacy, tasks: Any, first: str
) -> None:
    job_id = str(uuid.uuid4())
    if first == "completed":
        tasks.once.apply_async(task_id=job_id)
    else:
        tasks.fail.apply_async(("first",), task_id=job_id)
    record = app.await_state(job_id, first)
    tasks.insist.apply_async((99,), task_id=job_id, headers={"mark": job_id})
    [letter] = letters_with(app, job_id, 1)
    assert (letter.job_type, letter.category, letter.code) == (
        "legacy.insist",
        "rejected",
        "id_reused",
    )
    assert letter.job_id != job_id
    assert letter.evidence == {"id": job_id, "type_of_that_id": record["type"]}
    assert (
        f"the id {job_id} of this message is that of a job of type {record['type']!r}"
        in letter.error_message
    )
    assert app.record(job_id) == record
    assert app.record(letter.job_id)["state"] == "dead_lettered"
    assert app.notes(f"{job_id}:runs") == (["1"] if first == "completed" else [])


@pytest.mark.parametrize(
    "options", [{"countdown": 5}, {"expires": datetime(2020, 1, 1, tzinfo=UTC)}]
)
def test_so_does_one_that_would_wait_or_has_expired(
    app: Legacy, tasks: Any, options: dict[str, Any]
) -> None:
    job_id = str(uuid.uuid4())
    assert tasks.once.apply_async(task_id=job_id).get(timeout=SOON_S) == 1
    tasks.fail.apply_async(("x",), task_id=job_id, headers={"mark": job_id}, **options)
    [letter] = letters_with(app, job_id, 1)
    assert letter.evidence["type_of_that_id"] == "legacy.once"
    assert letter.code == ("expired" if "expires" in options else "id_reused")
    assert app.record(job_id)["state"] == "completed"


def test_an_unknown_task_with_the_id_of_a_known_one_leaves_a_letter(
    app: Legacy, tasks: Any
) -> None:
    job_id = str(uuid.uuid4())
    assert tasks.once.apply_async(task_id=job_id).get(timeout=SOON_S) == 1
    headers = {"task": "legacy.nowhere", "id": job_id, "mark": job_id}
    app.at_broker.push(f"{app.prefix}.work", headers, BODY)
    [letter] = letters_with(app, job_id, 1)
    assert (letter.job_type, letter.code) == ("legacy.nowhere", "unknown_task")
    assert letter.evidence["type_of_that_id"] == "legacy.once"


def test_a_replay_runs_it_under_the_id_of_its_letter(app: Legacy, tasks: Any) -> None:
    job_id = str(uuid.uuid4())
    assert tasks.once.apply_async(task_id=job_id).get(timeout=SOON_S) == 1
    tasks.insist.apply_async((1,), task_id=job_id, headers={"mark": job_id})
    [letter] = letters_with(app, job_id, 1)
    replay(app.settings, letter)
    assert app.await_state(letter.job_id, "completed")["type"] == "legacy.insist"
    assert app.notes(f"{letter.job_id}:runs") == ["1"]


def test_a_replay_gives_an_id_to_what_came_without_one(app: Legacy, tasks: Any) -> None:
    mark = uuid.uuid4().hex
    app.at_broker.push(f"{app.prefix}.work", {"task": "legacy.once", "mark": mark}, b"[[],{},{}]")
    [letter] = letters_with(app, mark, 1)
    replay(app.settings, letter)
    app.await_state(letter.job_id, "completed")
    assert app.notes(f"{letter.job_id}:runs") == ["1"]


def replay(settings: Settings, letter: Letter) -> None:
    """What the relay does with a letter."""
    with connect(settings.need_redis_url()) as client:
        records = Records(client, settings)
        publisher = AnyQueuePublisher(settings, records)
        job_id, queue = letter.job_id, letter.queue
        opened = records.replay(
            job_id=job_id,
            epoch=letter.epoch,
            generation=letter.generation,
            request_id=str(uuid.uuid4()),
            job_type=letter.job_type,
            queue=queue,
            priority=None,
        )
        stamp = Stamp(letter.epoch, opened.generation, opened.seq, sent_us=opened.now_us)
        message = for_job(letter.message, job_id)
        publisher.publish(message, queue=queue, priority=None, job_id=job_id, stamp=stamp)
        publisher.close()


@pytest.mark.parametrize("broker", BROKERS)
def test_a_watched_app_runs_both_and_each_that_fails_has_its_letter(
    broker: str, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on(broker, servers, tmp_path, "observe") as app, app.producer() as tasks:
        app.worker()
        job_id, mark = str(uuid.uuid4()), uuid.uuid4().hex
        tasks.once.apply_async(task_id=job_id)
        app.await_state(job_id, "completed")
        tasks.fail.apply_async(("second",), task_id=job_id, headers={"mark": mark})
        [letter] = letters_with(app, mark, 1)
        assert (letter.job_type, letter.error_message) == ("legacy.fail", "second")
        assert letter.job_id != job_id
        assert app.record(job_id)["type"] == "legacy.once"
        for _ in range(2):
            app.at_broker.push(f"{app.prefix}.work", {"mark": f"{mark}-junk"}, BODY)
        assert len({x.letter_id for x in letters_with(app, f"{mark}-junk", 2)}) == 2


@pytest.mark.parametrize("broker", BROKERS)
def test_a_kill_after_the_letter_of_a_message_without_an_id_adds_one_that_says_so(
    broker: str, servers: Servers, tmp_path: Path, start_worker: Callable[..., Worker]
) -> None:
    url = servers.valkey_url()
    at = url if broker == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at, visibility_timeout_s=2)
    seams = tmp_path / "seams"
    arm(seams, "after letter")
    options: dict[str, Any] = {
        "settings": settings,
        "queues": ("exec",),
        "modules": ("support.seams", HANDLERS),
        "environment": {FOLDER_VARIABLE: str(seams)},
    }
    worker = start_worker(**options)
    worker.await_log(" ready.")
    with connection(settings) as opened:
        Producer(opened.default_channel).publish(
            BODY,
            exchange="",
            routing_key=settings.broker_name("exec"),
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "exec_act"},
        )
    eventually(lambda: not is_armed(seams, "after letter"), "the kill", why=lambda: worker.log)
    second = start_worker(name="second", **options)
    found: list[Letter] = []

    def both() -> bool:
        found[:] = found + take_letters(settings) if broker == "rabbitmq" else on_redis(settings)
        return len(found) >= 2

    eventually(both, "two letters", why=lambda: second.log[-4000:])
    first, again = found
    assert first.message.body == again.message.body == BODY
    assert "possibly_repeated" not in first.evidence
    assert again.evidence["possibly_repeated"] is True
    assert "another letter may hold the same message" in again.error_message


def on_redis(settings: Settings) -> list[Letter]:
    harness = ServerHarness(settings)
    try:
        return [Letter.model_validate(letter) for letter in reversed(harness.letters())]
    finally:
        harness.close_connections()
