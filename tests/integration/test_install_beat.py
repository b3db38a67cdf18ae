"""Two beats of one app schedule every entry's due time once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

from servers import Servers
from support.legacy_fixtures import BROKERS, legacy_on
from taskyard.install.beat import due_time, entry_id


@pytest.mark.parametrize("broker", BROKERS)
def test_two_beats_schedule_and_each_due_time_runs_once(
    broker: str, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on(broker, servers, tmp_path) as legacy:
        legacy.worker()
        beats = [legacy.beat("left"), legacy.beat("right")]
        legacy.await_notes("ticks", 6)
        sent = sum(beat.log.count("Sending due task tick") for beat in beats)
        ran = legacy.notes("ticks")
        assert len(set(ran)) == len(ran)
        assert len(ran) < sent


def _entry(app: Celery, plan: object, last: datetime) -> ScheduleEntry:
    return ScheduleEntry(name="e", task="t", schedule=plan, last_run_at=last, app=app)


def test_two_beats_agree_on_a_crontabs_due_time() -> None:
    with Celery("c", set_as_current=False) as app:
        plan = crontab(minute="*/5", app=app)
        now = datetime(2026, 1, 1, 12, 5, 1, tzinfo=UTC)
        ran_at = [now - timedelta(seconds=seconds) for seconds in (290, 200, 61.5)]
        due = {due_time(_entry(app, plan, last), now) for last in ran_at}
        assert due == {"2026-01-01T12:05+00:00"}


def test_one_beats_intervals_never_share_a_due_time() -> None:
    with Celery("c", set_as_current=False) as app:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        fired = [start + timedelta(seconds=30.004 * count) for count in range(100)]
        plan = schedule(30, app=app)
        due = [due_time(_entry(app, plan, moment), moment) for moment in fired]
        assert len(set(due)) == len(due)


def test_an_entrys_id_depends_on_namespace_name_and_due_time() -> None:
    ids = {entry_id(*parts) for parts in (("n", "a", "d"), ("m", "a", "d"), ("n", "b", "d"))}
    assert len(ids | {entry_id("n", "a", "e")}) == 4
    assert entry_id("n", "a", "d") == entry_id("n", "a", "d")
