"""The mirror while its Redis is lost, read-only, full or holds a key of another type."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from servers import RedisServer
from support.mirrored import MirrorHarness
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.errors import PublishFailed


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(getattr(record, "action", "")) for record in caplog.records]


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path / "server")
    started.start()
    yield started
    started.stop()


@pytest.fixture
def harness(faulty: RedisServer, database: Engine) -> Iterator[MirrorHarness]:
    made = MirrorHarness(fresh_settings(faulty.url), database)
    yield made
    made.close()


@pytest.mark.parametrize("fault", ["lost", "read-only", "full"])
def test_a_fault_of_redis_is_waited_for_and_loses_neither_letter_nor_event(
    harness: MirrorHarness, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO, "taskyard")
    harness.mirror.run_once()
    with harness.running():
        letter = harness.post()
        harness.admit(f"before-{fault}")
        eventually(lambda: harness.has(letter), "the letter from before")
        match fault:
            case "lost":
                harness.client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            case "read-only":
                harness.client.replicaof("127.0.0.1", 1)
                eventually(lambda: "mirror_letters_waiting" in _logged(caplog), "it waits")
                harness.client.replicaof("NO", "ONE")
            case "full":
                harness.client.config_set("maxmemory", 1)
                with pytest.raises(PublishFailed):
                    harness.post()
                harness.client.config_set("maxmemory", 0)
        second = harness.post()
        harness.admit(f"after-{fault}")
        eventually(lambda: harness.has(second), "the letter from after")
        eventually(lambda: harness.knows(f"after-{fault}"), "the event from after")
    waits = [name for name in _logged(caplog) if name.endswith("_waiting")]
    assert len(waits) < 40


def test_a_stream_of_another_type_is_told_while_letters_go_on(
    harness: MirrorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskyard")
    key = f"{harness.settings.namespace}:lifecycle"
    harness.client.set(key, "not a stream")
    with harness.running():
        letter = harness.post()
        eventually(lambda: harness.has(letter), "the letter")
        eventually(lambda: "mirror_events_waiting" in _logged(caplog), "the other feed says so")
        harness.client.rename(key, f"{key}.kept")
        harness.admit("stream-mended")
        eventually(lambda: harness.knows("stream-mended"), "the event")
    texts = [r.getMessage() for r in caplog.records if getattr(r, "action", "").endswith("waiting")]
    assert len(texts) < 20
    assert any(key in text for text in texts)
