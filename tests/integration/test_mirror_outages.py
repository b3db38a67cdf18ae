"""The mirror as a process: it waits for servers that are away and loses nothing meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from servers import Servers
from support.mirrored import MirrorHarness
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.database.partitions import partitions
from taskyard.errors import ServerRefused
from taskyard.jobs.states import State
from taskyard.mirror import Mirrored
from taskyard.settings import Settings


@pytest.fixture
def harness(settings: Settings, database: Engine) -> Iterator[MirrorHarness]:
    made = MirrorHarness(settings, database)
    yield made
    made.close()


@contextmanager
def away(servers: Servers, database: Engine) -> Iterator[None]:
    """Postgres refuses the database and has cut every connection to it."""
    name = make_url(str(database.url)).database
    admin = create_engine(servers.database_url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :n"),
            {"n": name},
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))


def test_one_round_mirrors_letters_and_events(harness: MirrorHarness) -> None:
    harness.mirror.run_once()
    letter = harness.post()
    harness.admit("one-round")
    assert harness.mirror.run_once(wait_s=0.5) == Mirrored(letters=1, events=1)
    assert harness.has(letter)
    assert harness.knows("one-round")


def test_a_running_mirror_takes_what_comes_and_makes_its_partitions(harness: MirrorHarness) -> None:
    with harness.running():
        letter = harness.post()
        harness.admit("running")
        eventually(lambda: harness.has(letter), "the letter")
        eventually(lambda: harness.knows("running"), "the event")
        eventually(lambda: _weeks(harness.database), "partitions")


def _weeks(database: Engine) -> list[str]:
    with database.connect() as connection:
        return partitions(connection, "job_events")


def test_without_postgres_one_round_says_so_and_acknowledges_nothing(
    harness: MirrorHarness, servers: Servers, database: Engine
) -> None:
    harness.mirror.run_once()
    letter = harness.post()
    with away(servers, database), pytest.raises(ServerRefused, match="Postgres at"):
        harness.mirror.run_once(wait_s=0.5)
    assert not harness.has(letter)
    harness.mirror.run_once()
    assert harness.has(letter)


def test_an_outage_of_postgres_is_waited_for_and_then_made_up(
    harness: MirrorHarness,
    servers: Servers,
    database: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "taskyard")

    def logged() -> set[str]:
        return {str(getattr(record, "action", "")) for record in caplog.records}

    with harness.running():
        with away(servers, database):
            letter = harness.post()
            harness.admit("outage")
            waits = {"mirror_letters_waiting", "mirror_events_waiting"}
            eventually(lambda: waits <= logged(), "both feeds say that they wait")
        eventually(lambda: harness.has(letter), "the letter")
        eventually(lambda: harness.knows("outage"), "the event")
        over = [
            f"mirror_{feed} cannot continue: this works again" for feed in ("letters", "events")
        ]
        eventually(lambda: all(text in caplog.text for text in over), "both say that they go on")


def test_a_fault_of_our_own_ends_the_whole_mirror(
    harness: MirrorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a fault of ours")

    monkeypatch.setattr("taskyard.mirror.batch_feeds.store_letters", broken)
    harness.post()
    with pytest.raises(TypeError, match="a fault of ours"):
        harness.mirror.run(threading.Event())


def test_postgres_may_be_away_until_the_streams_budget_is_spent(
    servers: Servers, database: Engine
) -> None:
    """Over 60 % of the budget only failures are kept, what is left out is counted, jobs go on."""
    made = MirrorHarness(fresh_settings(servers.valkey_url(), lifecycle_max_events=100), database)
    try:
        made.mirror.run_once()
        with away(servers, database):
            for number in range(80):
                made.admit(f"budget-{number}")
            letter = made.post()
            with pytest.raises(ServerRefused):
                made.mirror.run_once()
            assert made.client.xlen(f"{made.settings.namespace}:lifecycle") == 60
            gaps = made.client.hgetall(f"{made.settings.namespace}:lifecycle:gaps")
            assert gaps == {b"admit": b"20"}
        with made.running():
            eventually(lambda: made.has(letter), "the letter")
            eventually(lambda: made.knows("budget-59"), "what the stream kept")
        assert not made.knows("budget-60")
        assert made.records.read("budget-79").state is State.ACCEPTED
    finally:
        made.close()
