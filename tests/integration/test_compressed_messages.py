"""Compressed messages: letters and retries carry what came, and what is unpacked is bounded."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kombu import Producer, Queue
from kombu.compression import compress, encoders

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_fixtures
from support.letters import make_letter
from support.rabbitmq import letters_of
from support.waiting import SOON_S, eventually
from support.worker import Worker
from support.yard import ServerHarness, catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import Taskyard
from taskyard.deadletters import exchange, mirror_queue
from taskyard.mirror import Delivery, kombu_letters
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.mirror.read_delivery import Readable, Unreadable, read
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter, plain_body

MIB = 1024 * 1024
KINDS = encoders()

app, tasks = legacy_fixtures("protect")


@cache
def bomb(mebibytes: int = 200) -> bytes:
    """Celery's JSON of one long text, in a thousandth of its size."""
    return zlib.compress(b'[["' + b"0" * (mebibytes * MIB) + b'"], {}, {}]', level=9)


def headers_of(task: str) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "task": task, "compression": "application/x-gzip"}


def peak_mib(pid: int) -> float:
    """The most memory that a process has ever held."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.parametrize("kind", KINDS)
def test_a_letter_has_the_bytes_that_came_and_shows_what_is_in_them(
    app: Legacy, tasks: Any, kind: str
) -> None:
    failed = tasks.fail.apply_async(("why " * 99,), compression=kind)
    letter = app.await_letter(failed.id)
    assert letter.message.headers["compression"] == kind
    assert len(letter.message.body) < 200
    assert json.loads(plain_body(letter.message))[0] == ["why " * 99] == letter.args


def test_a_letter_is_not_larger_than_what_came(app: Legacy, tasks: Any) -> None:
    failed = tasks.fail.apply_async(("x" * 4 * MIB,), compression="zlib")
    letter = app.await_letter(failed.id)
    assert (letter.args, letter.kwargs) == (None, None)
    assert len(letter.encode()) < 100_000


def test_each_retry_of_a_compressed_message_can_be_read(app: Legacy, tasks: Any) -> None:
    retried = tasks.insist.apply_async((2, "x" * 500), compression="zlib")
    assert retried.get(timeout=SOON_S) == [2, "x" * 501, 1]
    waited = tasks.later.apply_async(compression="bzip2")
    assert waited.get(timeout=SOON_S) == 1


def test_a_message_that_unpacks_too_large_is_a_letter_and_the_workers_memory_is_bounded(
    app: Legacy, tasks: Any
) -> None:
    worker = app.processes[0]
    assert tasks.add.delay(1, 2).get(timeout=SOON_S) == 3
    before_mib = peak_mib(worker.pid)
    body, sent = bomb(), [headers_of("legacy.add") for _ in range(10)]
    for headers in sent:
        app.at_broker.push(f"{app.prefix}.work", headers, body)
    for headers in sent:
        letter = app.await_letter(headers["id"])
        assert (letter.category, letter.code) == ("rejected", "unpacks_too_large")
        assert f"its {len(body):,} bytes (application/x-gzip)" in letter.error_message
        assert "set a higher TASKYARD_MAX_UNPACKED_BYTES" in letter.error_message
        assert letter.message.body == body
        assert len(letter.encode()) < 2 * len(body)
    assert tasks.add.delay(1, 2).get(timeout=SOON_S) == 3
    # What is unpacked up to the limit, 16 MiB, twice over, and some for ten letters.
    assert peak_mib(worker.pid) - before_mib < 48


def test_a_task_that_is_only_watched_takes_what_it_always_took(app: Legacy, tasks: Any) -> None:
    sent = tasks.watched.apply_async(("x" * 17 * MIB,), compression="zlib")
    app.await_notes(f"{sent.id}:runs", 1)


@pytest.fixture(params=BROKERS)
def settings(request: pytest.FixtureRequest, servers: Servers) -> Settings:
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    return fresh_settings(url, broker_url=broker, max_unpacked_bytes=100_000)


def test_on_a_worker_of_our_own_a_compressed_message_runs_up_to_the_limit(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(settings=settings, queues=("exec",))
    worker.await_log(" ready.")
    _send(settings, compress(_call("x" * 50_000), "zlib")[0])
    _send(settings, bomb(1))
    with Taskyard(settings, catalogue()) as yard:
        assert yard.enqueue("raw_act", {"n": 1}).result(SOON_S) == {"n": 1}
    [letter] = _letters(settings, worker)
    assert letter.code == "unpacks_too_large"
    assert letter.message.body == bomb(1)
    assert worker.running


def _call(text: str) -> bytes:
    return json.dumps([[{"text": text}], {}, {}]).encode()


def _send(settings: Settings, body: bytes) -> None:
    with connection(settings) as broker:
        _publish(broker, settings.broker_name("exec"), body)


def _publish(broker: Any, queue: str, body: bytes) -> None:
    Producer(broker.default_channel).publish(
        body,
        exchange="",
        routing_key=queue,
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers_of("raw_act"),
    )


def _letters(settings: Settings, worker: Worker) -> list[Letter]:
    if settings.need_broker_url().startswith("amqp"):
        return letters_of(settings, 1, lambda: worker.log[-3000:])
    harness = ServerHarness(settings)
    try:
        eventually(harness.letters, "a letter", why=lambda: worker.log[-3000:])
        return [Letter.model_validate(letter) for letter in harness.letters()]
    finally:
        harness.close_connections()


def test_what_rabbitmq_itself_drops_is_kept_as_it_came(servers: Servers) -> None:
    settings = fresh_settings(servers.valkey_url(), broker_url=servers.rabbitmq_url())
    packed = compress(_call("x" * 999), "zlib")[0]
    short = Queue(
        settings.broker_name("short"),
        message_ttl=0.001,
        queue_arguments={"x-dead-letter-exchange": exchange(settings).name},
    )
    with connection(settings) as broker:
        short(broker.default_channel).declare()
        mirror_queue(settings)(broker.default_channel).declare()
        for body in (packed, bomb()):
            _publish(broker, short.name, body)
    with closing(_source(settings)) as source:
        shown, hidden = sorted(_taken(source, 2), key=lambda one: len(one.body))
        for delivery, body in ((shown, packed), (hidden, bomb())):
            found = read(delivery)
            assert isinstance(found, Readable)
            assert found.letter.message.body == body
            assert found.letter.message.headers["compression"] == "application/x-gzip"
            assert found.letter.category == "expired"
    assert read(shown).letter.args == [{"text": "x" * 999}]  # type: ignore[union-attr] # asserted
    assert read(hidden).letter.args is None  # type: ignore[union-attr] # asserted


def test_a_letter_that_unpacks_too_large_is_kept_as_it_came(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kombu_letters, "ENVELOPE_LIMIT", 10_000)
    settings = fresh_settings(servers.valkey_url())
    bodies = [zlib.compress(make_letter(args=["x" * size]).encode()) for size in (1, 10_000)]
    with connection(settings) as broker:
        mirror_queue(settings)(broker.default_channel).declare()
        for body in bodies:
            _publish(broker, mirror_queue(settings).name, body)
    with closing(_source(settings)) as source:
        whole, large = map(read, _taken(source, 2))
    assert isinstance(whole, Readable)
    assert whole.letter.args == ["x"]
    assert isinstance(large, Unreadable)
    assert large.delivery.body == bodies[1]
    assert "decompress to more than 10,000 bytes" in large.why


def _source(settings: Settings) -> KombuLetters:
    return KombuLetters(connection(settings), mirror_queue(settings), prefetch=10)


def _taken(source: KombuLetters, count: int) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(source.take(count, wait_s=0.5))
        return len(found) >= count

    eventually(enough, f"{count} deliveries")
    return found
