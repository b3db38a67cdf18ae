"""Why Postgres did not store a letter: what passes is repeated, only refused data is kept raw."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from servers import Servers
from support.databases import administrator_url, with_query
from support.dated import dated
from support.entries import make_entry
from support.letters import DIED_US, make_delivery, make_letter
from support.waiting import eventually
from taskyard.clock import to_us
from taskyard.database import create_partitions, opened
from taskyard.database.postgres_errors import MEANINGS, Refusal, meaning
from taskyard.errors import SchemaMismatch, ServerRefused, ServerUnreachable
from taskyard.mirror import Delivery
from taskyard.mirror.batch_feeds import LetterFeed
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events

pytestmark = pytest.mark.usefixtures("empty_database")

REFUSALS = (ServerUnreachable, ServerRefused, SchemaMismatch, SQLAlchemyError)
WEEK = "dead_letter_queue_p20251006"  # of DIED_US


@pytest.fixture(scope="module")
def admin(servers: Servers, database_url: str) -> Iterator[Engine]:
    """The server's superuser in the same database; each statement is a transaction."""
    made = create_engine(
        administrator_url(servers, database_url), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    yield made
    made.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def errors(database: Engine) -> list[str | None]:
    """`mirror_error` of each stored letter: None where it is whole."""
    with database.connect() as connection:
        return list(connection.scalars(text("SELECT mirror_error FROM dead_letter_queue")))


def keep(database: Engine, *deliveries: Delivery) -> None:
    with database.begin() as connection:
        store_letters(connection, deliveries)


class InThread:
    """A letter that is stored beside the test, and how that ended."""

    def __init__(self, store: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._store = store
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._store()
        except REFUSALS as error:
            self.error = error

    def end(self) -> BaseException | None:
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()
        return self.error


def waits_for_a_lock(admin: Engine, count: int = 1) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :n"
    with admin.connect() as connection:
        return connection.scalar(text(query), {"n": admin.url.database}) == count


@contextmanager
def locked(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE dead_letter_queue"))
        yield connection


def store_under(url: str, letter: Delivery) -> BaseException:
    """What storing raises over a connection with the options of `url`."""
    with opened(url) as other, pytest.raises(REFUSALS) as caught:
        keep(other, letter)
    return caught.value


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_letter_that_waited_too_long_for_a_lock_is_stored_whole_later(
    database: Engine, database_url: str, limit: str
) -> None:
    letter = make_delivery(make_letter())
    with locked(database):
        refusal = store_under(with_query(database_url, options=f"-c {limit}=100"), letter)
    assert f"due to {limit.replace('_', ' ')}" in str(refusal)
    keep(database, letter)
    assert errors(database) == [None]


def test_a_letter_of_a_deadlock_is_stored_whole_later(database: Engine, admin: Engine) -> None:
    letter = make_delivery(make_letter())

    def other() -> None:
        with admin.connect() as connection:
            # Only the letter's side looks for a deadlock, so it is the one that is refused.
            connection.execute(text("SET deadlock_timeout = '10min'"))
            connection.execute(text("BEGIN; LOCK TABLE dead_letter_queue; LOCK TABLE outbox"))
            connection.execute(text("ROLLBACK"))

    with database.connect() as connection:
        connection.execute(text("LOCK TABLE outbox"))
        beside = InThread(other)
        eventually(lambda: waits_for_a_lock(admin), "the other one waits")
        with pytest.raises(ServerRefused, match="deadlock detected"):
            store_letters(connection, [letter])
    assert beside.end() is None
    keep(database, letter)
    assert errors(database) == [None]


def test_a_letter_of_a_failed_serialization_is_stored_whole_later(
    database: Engine, database_url: str
) -> None:
    keep(database, make_delivery(make_letter("j", version=1)))
    newer = make_delivery(make_letter("j", version=3))
    url = with_query(database_url, options="-c default_transaction_isolation=serializable")
    with opened(url) as other, other.connect() as connection:
        connection.execute(text("SELECT count(*) FROM dead_letter_queue"))
        keep(database, make_delivery(make_letter("j", version=2)))
        with pytest.raises(ServerRefused, match="could not serialize"):
            store_letters(connection, [newer])
    keep(database, newer)
    assert errors(database) == [None]


@pytest.mark.parametrize(("table", "year"), [("dead_letter_queue", 2011), ("job_events", 2012)])
def test_a_row_whose_week_is_attached_meanwhile_is_stored_whole(
    database: Engine, admin: Engine, table: str, year: int
) -> None:
    now = datetime(year, 5, 5, 12, tzinfo=UTC)
    letter = make_delivery(make_letter(last_failure_us=to_us(now)))
    event = make_entry("j", epoch=to_us(now), at=to_us(now))

    def store() -> None:
        with database.begin() as connection:
            if table == "dead_letter_queue":
                store_letters(connection, [letter])
            else:
                store_events(connection, [event])

    with database.begin() as upkeep:
        create_partitions(upkeep, now)
        storing = InThread(store)
        eventually(lambda: waits_for_a_lock(admin), "the row waits for the upkeep")
    assert storing.end() is None
    week = now - timedelta(days=now.weekday())
    query = text(f"SELECT tableoid::regclass::text FROM {table}")  # noqa: S608
    with database.connect() as connection:
        assert connection.scalars(query).all() == [f"{table}_p{week:%Y%m%d}"]


def test_a_letter_for_which_there_is_no_partition_waits_for_one(database: Engine) -> None:
    letter = make_delivery(make_letter(last_failure_us=DIED_US + 10**15))
    run(database, "ALTER TABLE dead_letter_queue DETACH PARTITION dead_letter_queue_default")
    try:
        with pytest.raises(DBAPIError, match="no partition of relation"):
            keep(database, letter)
    finally:
        run(
            database,
            "ALTER TABLE dead_letter_queue ATTACH PARTITION dead_letter_queue_default DEFAULT",
        )
    keep(database, letter)
    assert errors(database) == [None]


def test_a_letter_whose_week_is_detached_meanwhile_is_stored_whole(
    database: Engine, admin: Engine
) -> None:
    letter = make_delivery(make_letter())
    with database.begin() as upkeep:
        upkeep.execute(text(f"ALTER TABLE dead_letter_queue DETACH PARTITION {WEEK}"))
        storing = InThread(lambda: keep(database, letter))
        eventually(lambda: waits_for_a_lock(admin), "the letter waits for the upkeep")
    if storing.end() is not None:
        keep(database, letter)
    assert errors(database) == [None]
    run(database, "TRUNCATE dead_letter_queue", f"DROP TABLE {WEEK}")
    with dated(database.url.render_as_string(False)):
        pass


@pytest.mark.parametrize(
    ("stop", "kind", "said"),
    [
        ("pg_terminate_backend", ServerUnreachable, "server closed the connection"),
        ("pg_cancel_backend", SQLAlchemyError, "canceling statement due to user request"),
    ],
)
def test_a_letter_whose_statement_is_stopped_is_stored_whole_later(
    database: Engine, admin: Engine, stop: str, kind: type[BaseException], said: str
) -> None:
    letter = make_delivery(make_letter())
    with locked(database):
        storing = InThread(lambda: keep(database, letter))
        eventually(lambda: waits_for_a_lock(admin), "the letter waits")
        run(
            admin,
            f"SELECT {stop}(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "  # noqa: S608
            f"AND datname = '{admin.url.database}'",
        )
        error = storing.end()
    assert isinstance(error, kind)
    assert said in str(error)
    keep(database, letter)
    assert errors(database) == [None]


def test_a_connection_that_was_idle_too_long_is_named_as_lost(
    database: Engine, database_url: str, admin: Engine
) -> None:
    letter = make_delivery(make_letter())
    url = with_query(
        database_url,
        options="-c idle_in_transaction_session_timeout=50",
        application_name="idle in a test",
    )
    gone = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle in a test'")

    def ended() -> bool:
        with admin.connect() as connection:
            return connection.scalar(gone) == 0

    with opened(url) as other, other.connect() as connection:
        connection.execute(text("SELECT 1"))
        eventually(ended, "the server ends the connection")
        with pytest.raises(ServerUnreachable):
            store_letters(connection, [letter])
    keep(database, letter)
    assert errors(database) == [None]


def test_a_read_only_server_is_waited_for(database: Engine, database_url: str) -> None:
    letter = make_delivery(make_letter())
    url = with_query(database_url, options="-c default_transaction_read_only=on")
    refusal = store_under(url, letter)
    assert isinstance(refusal, ServerRefused)
    assert "read-only transaction" in str(refusal)
    keep(database, letter)
    assert errors(database) == [None]


@pytest.mark.parametrize(
    ("off", "on", "kind", "said"),
    [
        (
            "ALTER DATABASE {name} CONNECTION LIMIT 0",
            "ALTER DATABASE {name} CONNECTION LIMIT -1",
            ServerRefused,
            "too many connections",
        ),
        (
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
            ServerRefused,
            "not currently accepting connections",
        ),
        (
            "ALTER ROLE taskyard NOLOGIN",
            "ALTER ROLE taskyard LOGIN",
            ServerRefused,
            "not permitted to log in",
        ),
        (
            "ALTER DATABASE {name} RENAME TO elsewhere",
            "ALTER DATABASE elsewhere RENAME TO {name}",
            SchemaMismatch,
            "Create the database",
        ),
        (
            "ALTER TABLE dead_letter_queue RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO dead_letter_queue",
            SchemaMismatch,
            "Run: taskyard migrate",
        ),
        (
            "REVOKE INSERT ON dead_letter_queue FROM taskyard",
            "GRANT INSERT ON dead_letter_queue TO taskyard",
            SQLAlchemyError,
            "permission denied",
        ),
    ],
)
def test_a_server_that_serves_nobody_is_named_and_waited_for(
    servers: Servers, database: Engine, off: str, on: str, kind: type[BaseException], said: str
) -> None:
    letter, name = make_delivery(make_letter()), database.url.database
    url = database.url.render_as_string(False)
    place = administrator_url(servers, url)
    if "TABLE" not in off and "ON " not in off:
        place = make_url(place).set(database="postgres").render_as_string(False)
    other = create_engine(place, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    database.dispose()
    run(other, off.format(name=name))
    try:
        refusal = store_under(url, letter)
    finally:
        run(other, on.format(name=name))
    assert isinstance(refusal, kind)
    assert said in str(refusal)
    assert "does not answer" not in str(refusal)
    keep(database, letter)
    assert errors(database) == [None]


@contextmanager
def refusing(database: Engine, code: str, which: str = "true") -> Iterator[None]:
    """A trigger refuses each letter that is `which` and whole."""
    run(
        database,
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'refused by a test' USING ERRCODE = '{code}'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON dead_letter_queue FOR EACH ROW "
        f"WHEN (NEW.mirror_error IS NULL AND {which}) EXECUTE FUNCTION refuse()",
    )
    try:
        yield
    finally:
        run(database, "DROP TRIGGER refuse ON dead_letter_queue", "DROP FUNCTION refuse")


CODES = {prefix.ljust(5, "0"): kind for prefix, kind in MEANINGS.items()}


@pytest.mark.parametrize("code", sorted({*CODES, "0A000"}))
def test_each_row_of_the_table_decides_what_becomes_of_a_letter(
    database: Engine, code: str
) -> None:
    kind = CODES.get(code, Refusal.UNCLEAR)
    letter = make_delivery(make_letter())
    with refusing(database, code):
        if kind is Refusal.DATA:
            keep(database, letter)
            assert errors(database) == ["refused by a test"]
            return
        with pytest.raises(REFUSALS, match="refused by a test"):
            keep(database, letter)
    assert errors(database) == []
    keep(database, letter)
    assert errors(database) == [None]


def test_a_code_is_judged_by_its_longest_row() -> None:
    class Refused(Exception):
        pgcode = "57014"

    assert meaning(Refused()) is Refusal.PASSING
    Refused.pgcode = "57P01"
    assert meaning(Refused()) is Refusal.UNREACHABLE


class Queue:
    """A source that holds what it is given."""

    def __init__(self, *deliveries: Delivery) -> None:
        self.waiting: Sequence[Delivery] = deliveries
        self.acknowledged: list[Any] = []

    def take(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        taken, self.waiting = self.waiting, ()
        return taken

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged += deliveries


def test_a_refusal_that_says_not_whose_fault_it_is_holds_nothing_up_for_ever(
    database: Engine,
) -> None:
    """First it may pass; what is refused again and again, alone in its batch, is refused data."""
    batch = [make_delivery(make_letter()) for _ in range(6)]
    feed = LetterFeed(database, Queue(make_delivery(make_letter("bad")), *batch))
    with refusing(database, "XX000", "NEW.original_request_id = 'bad'"):
        for _ in range(5):
            with pytest.raises(DBAPIError, match="refused by a test"):
                feed.step(0)
            assert errors(database) == []
        assert feed.step(0) == 7
    assert sorted(errors(database), key=str) == [None] * 6 + ["refused by a test"]


def test_a_refusal_that_passes_is_waited_for_however_often_it_comes(database: Engine) -> None:
    feed = LetterFeed(database, Queue(make_delivery(make_letter())))
    with refusing(database, "53100"):
        for _ in range(12):
            with pytest.raises(ServerRefused, match="refused by a test"):
                feed.step(0)
    assert feed.step(0) == 1
    assert errors(database) == [None]
