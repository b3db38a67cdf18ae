"""Watching an existing app: events and letters, and nothing else, whatever happens to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from servers import RedisServer, Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_fixtures
from support.waiting import SOON_S, eventually
from support.yard import fresh_settings

app, tasks = legacy_fixtures("observe")


def test_a_job_is_recorded_from_begin_to_end(app: Legacy, tasks: Any) -> None:
    result = tasks.add.delay(1, 2)
    app.await_state(result.id, "completed")
    assert app.events(result.id) == ["begin", "complete"]


def test_a_failure_leaves_a_letter_with_its_traceback(app: Legacy, tasks: Any) -> None:
    result = tasks.fail.delay("cause")
    letter = app.await_letter(result.id)
    assert (letter.category, letter.error_class) == ("non_retryable", "ValueError")
    assert "raise ValueError(text)" in letter.traceback
    assert letter.args == ["cause"]


def test_the_same_failure_has_the_same_fingerprint(app: Legacy, tasks: Any) -> None:
    found = {app.await_letter(tasks.fail.delay(text).id).fingerprint for text in ("one", "two")}
    assert len(found) == 1


def test_own_retries_are_recorded_as_they_happen(app: Legacy, tasks: Any) -> None:
    result = tasks.insist.delay(99)
    assert app.await_letter(result.id).category == "retry_exhausted"
    assert app.events(result.id) == ["begin", "retry", "begin", "retry", "begin", "fail"]


def test_the_same_id_twice_runs_twice_as_before(app: Legacy, tasks: Any) -> None:
    first = tasks.once.apply_async(task_id=f"{app.prefix}-twice")
    assert first.get(timeout=SOON_S) == 1
    tasks.once.apply_async(task_id=first.id)
    assert app.await_notes(f"{first.id}:runs", 2) == ["1", "1"]


def test_a_hard_limit_an_expiry_and_a_rejection_leave_letters(app: Legacy, tasks: Any) -> None:
    expired = "2001-01-01T00:00:00+00:00"
    assert app.await_letter(tasks.overtime.delay().id).category == "timeout"
    assert app.await_letter(tasks.reject.delay().id).category == "rejected"
    result = tasks.add.apply_async((1, 2), expires=expired)
    assert app.await_letter(result.id).category == "expired"
    lost = tasks.crash.delay(1)
    assert app.await_letter(lost.id).category == "internal_error"


def test_an_unknown_task_leaves_a_letter(app: Legacy, tasks: Any) -> None:
    result = tasks.app.send_task("legacy.nobody", queue=f"{app.prefix}.work")
    assert app.await_letter(result.id).category == "unknown_task"


def test_messages_stay_as_they_are(app: Legacy, tasks: Any) -> None:
    result = tasks.later.delay()
    assert result.get(timeout=SOON_S) == 1
    assert app.at_broker.waiting() == 0


@pytest.mark.parametrize("broker", BROKERS)
def test_without_a_reachable_redis_the_app_works_as_before(
    broker: str, servers: Servers, tmp_path: Path
) -> None:
    gone = RedisServer(tmp_path / "gone").url
    url = servers.valkey_url()
    at = url if broker == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(gone, broker_url=at)
    legacy = Legacy("observe", at, url, settings, tmp_path, notes_url=url)
    try:
        worker = legacy.worker()
        with legacy.producer() as tasks:
            assert tasks.add.delay(1, 2).get(timeout=SOON_S) == 3
            with pytest.raises(ValueError, match="as before"):
                tasks.fail.delay("as before").get(timeout=SOON_S)
        eventually(
            lambda: "an event of an observed task was not written" in worker.log,
            "a word in the log",
        )
    finally:
        legacy.close()
