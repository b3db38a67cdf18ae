"""Ageing out: what is past its retention goes, is counted, and no wrong clock takes the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from servers import Servers
from support.databases import migrated_database
from support.letters import make_delivery, make_letter
from taskyard.clock import SYSTEM_CLOCK, SystemClock, to_us
from taskyard.database import create_partitions, engine
from taskyard.database.partitions import partitions
from taskyard.database.tables import EVENTS, LEDGER, LETTERS
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.mirror.partition_upkeep import keep_partitions
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.settings import Settings


class Off(SystemClock):
    """A clock that is wrong."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


@pytest.fixture
def database(servers: Servers) -> Iterator[Engine]:
    """A database of its own: ageing out would take other tests' rows."""
    made = engine(migrated_database(servers))
    yield made
    made.dispose()


def ago(days: int) -> int:
    return to_us(datetime.now(UTC) - timedelta(days=days))


def store(database: Engine, days: int) -> None:
    """A letter that comes now and says it was decided `days` ago."""
    letter = make_letter(first_failure_us=ago(days), last_failure_us=ago(days))
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])


def letters(database: Engine) -> int:
    with database.connect() as connection:
        return connection.scalar(select(func.count()).select_from(LETTERS)) or 0


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(getattr(record, "action", "")) for record in caplog.records]


def test_weeks_past_their_retention_are_dropped(database: Engine, settings: Settings) -> None:
    with database.begin() as connection:
        create_partitions(connection, datetime.now(UTC) - timedelta(days=200))
        before = partitions(connection, "dead_letter_queue")
    keep_partitions(database, settings, SYSTEM_CLOCK)
    with database.connect() as connection:
        after = partitions(connection, "dead_letter_queue")
    assert before
    assert after
    assert not set(before) & set(after)


@pytest.mark.parametrize("days", [20_000, 200, -200])
def test_a_letter_with_a_strange_date_stays_for_its_whole_retention(
    database: Engine, settings: Settings, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    keep_partitions(database, settings, SYSTEM_CLOCK)
    store(database, days)
    keep_partitions(database, settings, SYSTEM_CLOCK)
    assert letters(database) == 1
    long_ago = func.now() - timedelta(days=settings.letter_retention_days + 1)
    with database.begin() as connection:
        connection.execute(update(LETTERS).values(mirrored_at=long_ago))
    keep_partitions(database, settings, SYSTEM_CLOCK)
    assert letters(database) == 0
    assert {"rows_aged_out", "open_letters_aged_out"} <= set(actions(caplog))
    assert "deleted 1 dead letters that still waited for an operator" in caplog.text


def test_history_of_a_job_that_was_admitted_long_ago_and_replayed_today_stays(
    database: Engine, settings: Settings
) -> None:
    keep_partitions(database, settings, SYSTEM_CLOCK)
    fields = {"job": "old", "epoch": ago(40), "generation": 1, "seq": 0, "version": 9}
    fields |= {"event": "replay", "state": "accepted", "from": "dead_lettered", "at": ago(0)}
    fields |= {"type": "t", "queue": "plan", "priority": 3}
    raw = {name.encode(): str(value).encode() for name, value in fields.items()}
    with database.begin() as connection:
        store_events(connection, [StreamEntry("1-1", raw)])
    keep_partitions(database, settings, SYSTEM_CLOCK)
    with database.connect() as connection:
        for table in (LEDGER, EVENTS):
            assert connection.scalar(select(func.count()).select_from(table)) == 1


@pytest.mark.parametrize("hours", [2400, 2, -2400])
def test_clocks_that_differ_drop_nothing_and_are_told(
    database: Engine, settings: Settings, caplog: pytest.LogCaptureFixture, hours: int
) -> None:
    store(database, 100)
    with database.begin() as connection:
        create_partitions(connection, datetime.now(UTC) - timedelta(days=200))
        connection.execute(update(LETTERS).values(mirrored_at=func.now() - timedelta(days=95)))
    keep_partitions(database, settings, Off(timedelta(hours=hours)))
    assert letters(database) == 1
    assert actions(caplog).count("upkeep_clocks_differ") == 1
    assert "Correct the wrong clock" in caplog.text
    keep_partitions(database, settings, Off(timedelta(minutes=50)))
    assert letters(database) == 0
