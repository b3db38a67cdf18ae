"""The schema: migrated up and down, checked, partitioned; and what its failures are called."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import DataError, ProgrammingError
from sqlalchemy.pool import NullPool

from servers import Servers
from support.waiting import eventually
from taskyard.access import Action
from taskyard.clock import to_us
from taskyard.database import (
    check,
    create_partitions,
    drop_partitions_before,
    engine,
    migrate,
    opened,
)
from taskyard.database.migrate import _FOLDER, _versions
from taskyard.database.partitions import AHEAD, PARTITIONED, AgedOut, partitions
from taskyard.database.tables import METADATA
from taskyard.errors import InvalidSettings, SchemaMismatch, ServerUnreachable
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN, LetterStatus, ReplayOutcome

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday


@pytest.fixture
def url(servers: Servers) -> str:
    """An empty database."""
    name = f"t{uuid.uuid4().hex[:10]}"
    admin = create_engine(servers.database_url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return make_url(servers.database_url()).set(database=name).render_as_string(False)


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    migrate(url)
    made = engine(url)
    yield made
    made.dispose()


def allowed_values(database: Engine, table: str, constraint: str) -> set[str]:
    checks = inspect(database).get_check_constraints(table)
    sql = next(str(found["sqltext"]) for found in checks if found["name"] == constraint)
    return {part.split("'")[0] for part in sql.split("'")[1::2]}


def test_an_opened_engine_lets_its_connections_go_also_after_a_failure(url: str) -> None:
    refusal = pytest.raises(SchemaMismatch)
    with refusal, opened(url, application_name="left behind") as made, made.connect() as connection:
        connection.execute(text("SELECT 1 / nothing"))
    query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'left behind'")
    with opened(url) as other:

        def left() -> int:
            with other.connect() as connection:
                return int(connection.scalar(query) or 0)

        eventually(lambda: left() == 0, "no connection of the first engine")


def test_an_empty_database_goes_up_down_to_nothing_and_up_again(url: str) -> None:
    assert migrate(url).current == check(url).current
    assert migrate(url, "base").current is None
    left = inspect(create_engine(url, poolclass=NullPool)).get_table_names()
    assert left == ["taskyard_schema"]
    assert migrate(url).current == check(url).expected


def test_versions_follow_each_other_and_their_files_are_named_by_them() -> None:
    files = sorted(path.name for path in (_FOLDER / "versions").glob("0*.py"))
    assert [name[:4] for name in files] == _versions()


def test_migrations_started_at_once_end_in_one_schema(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda _: migrate(url), range(4)))
    assert {end.current for end in ends} == {check(url).expected}


def test_an_unmigrated_database_is_told_how_to_migrate(url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"has no schema, expected .*Run: taskyard migrate"):
        check(url)


def test_a_newer_schema_is_not_taken_for_ours(url: str) -> None:
    migrate(url)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE taskyard_schema SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match=r"has schema 9999.*Upgrade taskyard"):
        check(url)


def test_an_unknown_version_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidSettings, match="no schema version '0815'; known: base, 0001"):
        migrate(url, "0815")


def test_the_tables_in_code_have_the_columns_of_the_database(database: Engine) -> None:
    found = inspect(database)
    for table in METADATA.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.c.keys())


def test_the_database_knows_the_same_lists_of_words_as_the_code(database: Engine) -> None:
    categories = allowed_values(database, "dead_letter_queue", "dead_letter_queue_category")
    assert categories == {category.value for category in Category}
    statuses = allowed_values(database, "dead_letter_queue", "dead_letter_queue_status")
    assert statuses == {status.value for status in LetterStatus}
    outcomes = allowed_values(database, "dead_letter_queue", "dead_letter_queue_outcome")
    assert outcomes == {outcome.value for outcome in ReplayOutcome}
    actions = allowed_values(database, "operator_audit_log", "operator_audit_log_action")
    assert actions == {action.value for action in Action}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operator_audit_log SET reason = 'another'",
        "DELETE FROM operator_audit_log",
        "TRUNCATE operator_audit_log",
    ],
)
def test_even_the_owner_cannot_change_the_audit_log(database: Engine, statement: str) -> None:
    refusal = pytest.raises(ProgrammingError, match="operator_audit_log is append-only")
    with database.connect() as connection, refusal:
        connection.execute(text(statement))


def test_a_database_that_is_not_there_is_told_by_a_server_that_is(url: str) -> None:
    absent = make_url(url).set(database="nowhere").render_as_string(hide_password=False)
    message = (
        r'refuses the connection: .*"nowhere" does not exist\. Create the database \(createdb\)'
    )
    with pytest.raises(SchemaMismatch, match=message), opened(absent) as engine:
        engine.connect()


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(ServerUnreachable, match="taskyard up") as caught:
        engine("postgresql://user:geheim@127.0.0.1:1/name").connect()
    assert "geheim" not in str(caught.value)


def test_a_url_of_another_database_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="names 'mysql'; expected a PostgreSQL URL"):
        engine("mysql://user@host/name")


def test_a_missing_table_is_a_schema_to_migrate(url: str) -> None:
    with (
        engine(url).connect() as connection,
        pytest.raises(SchemaMismatch, match="taskyard migrate"),
    ):
        connection.execute(text("SELECT * FROM dead_letter_queue"))


def test_a_connection_that_died_in_the_pool_is_replaced_without_an_error(database: Engine) -> None:
    with database.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with create_engine(database.url, poolclass=NullPool).connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with database.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_weeks_are_created_ahead_once(database: Engine) -> None:
    with database.begin() as connection:
        created = create_partitions(connection, NOW, timedelta(weeks=1))
        assert create_partitions(connection, NOW, timedelta(weeks=1)) == []
    letters = [name for name in created if name.startswith("dead_letter_queue")]
    assert letters == [
        "dead_letter_queue_p20260223",
        "dead_letter_queue_p20260302",
        "dead_letter_queue_p20260309",
    ]
    assert len(created) == len(letters) * len(PARTITIONED)


@pytest.mark.parametrize(
    ("at", "ahead"),
    [
        (NOW, timedelta(days=36)),
        (datetime(1999, 1, 1, tzinfo=UTC), AHEAD),
        (datetime(2150, 1, 1, tzinfo=UTC), timedelta(0)),
        (datetime.now(UTC) + timedelta(days=40), AHEAD),
        (None, AHEAD),
    ],
)
def test_more_weeks_than_anybody_needs_are_refused(
    database: Engine, at: datetime, ahead: timedelta
) -> None:
    with (
        database.connect() as connection,
        pytest.raises(DataError, match="the year 2000 to 5 weeks from now"),
    ):
        create_partitions(connection, at, ahead)


@pytest.mark.parametrize("table", PARTITIONED)
def test_what_is_younger_than_a_day_is_dropped_for_nobody(database: Engine, table: str) -> None:
    for cutoff in (datetime.now(UTC), datetime.now(UTC) + timedelta(days=900)):
        refusal = pytest.raises(DataError, match="what is younger than a day is not dropped")
        with database.connect() as connection, refusal:
            drop_partitions_before(connection, table, cutoff)


def test_only_our_tables_have_weeks_to_drop(database: Engine) -> None:
    with database.connect() as connection:
        with pytest.raises(KeyError):
            drop_partitions_before(connection, "operator_audit_log", NOW)
        call = text("SELECT taskyard_drop_partitions('operator_audit_log', now() - interval '9 y')")
        with pytest.raises(DataError, match="operator_audit_log has no partitions"):
            connection.execute(call)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/New_York"])
def test_a_week_begins_on_monday_in_utc_whatever_the_session_thinks(url: str, zone: str) -> None:
    migrate(url)
    with opened(url) as made, made.begin() as connection:
        connection.execute(text(f"SET LOCAL TIME ZONE '{zone}'"))
        # The clocks of New York change on the eighth.
        created = create_partitions(connection, NOW, timedelta(weeks=2))
        connection.execute(text("SET LOCAL TIME ZONE 'UTC'"))
        bounds = connection.scalars(
            text(
                "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname LIKE :name "
                "AND relkind = 'r' "
                "ORDER BY relname"
            ),
            {"name": "dead\\_letter\\_queue\\_p%"},
        ).all()
    days = ("2026-02-23", "2026-03-02", "2026-03-09", "2026-03-16", "2026-03-23")
    assert [name for name in created if name.startswith("dead")] == [
        f"dead_letter_queue_p{day.replace('-', '')}" for day in days[:-1]
    ]
    assert [re.findall(r"\d{4}-\d\d-\d\d 00:00:00\+00", bound) for bound in bounds] == [
        [f"{low} 00:00:00+00", f"{high} 00:00:00+00"] for low, high in pairwise(days)
    ]


@pytest.mark.parametrize("status", LetterStatus)
def test_ageing_out_counts_the_letters_that_wait_for_an_operator(
    database: Engine, status: LetterStatus
) -> None:
    insert_letter(database, NOW, mirrored_at=NOW - timedelta(days=9), status=status.value)
    assert age_out(database).open_letters == int(status in OPEN)


def test_two_mirrors_may_create_weeks_at_once(database: Engine) -> None:
    def create(_: int) -> int:
        with database.begin() as connection:
            return len(create_partitions(connection, NOW))

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4)))[:3] == [0, 0, 0]


def insert_letter(
    database: Engine, decided_at: datetime, mirrored_at: datetime = NOW, status: str = "pending"
) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dead_letter_queue (id, decided_at, failure_category, failure_reason, "
                "replay_eligible, mirror_error, raw_envelope, mirrored_at, status) "
                "VALUES (gen_random_uuid(), :at, 'timeout', 'x', false, 'x', 'x', :came, :status)"
            ),
            {"at": decided_at, "came": mirrored_at, "status": status},
        )


def homes(database: Engine) -> list[str]:
    with database.connect() as connection:
        return sorted(
            connection.scalars(text("SELECT tableoid::regclass::text FROM dead_letter_queue"))
        )


def test_a_row_without_a_week_moves_into_it_when_the_week_is_created(database: Engine) -> None:
    insert_letter(database, NOW)
    assert homes(database) == ["dead_letter_queue_default"]
    with database.begin() as connection:
        create_partitions(connection, NOW)
    assert homes(database) == ["dead_letter_queue_p20260302"]


def age_out(database: Engine, table: str = "dead_letter_queue") -> AgedOut:
    with database.begin() as connection:
        return drop_partitions_before(connection, table, NOW - timedelta(days=2))


def test_ageing_out_drops_whole_weeks_and_old_rows_without_a_week(database: Engine) -> None:
    with database.begin() as connection:
        create_partitions(connection, NOW)
    for age in (timedelta(days=400), timedelta(weeks=1), timedelta()):
        insert_letter(database, NOW - age, mirrored_at=NOW - age)
    insert_letter(database, NOW - timedelta(weeks=1), NOW - timedelta(weeks=1), "replayed")
    gone = AgedOut(("dead_letter_queue_p20260223",), rows=3, open_letters=2, kept=0)
    assert age_out(database) == gone
    with database.begin() as connection:
        assert "dead_letter_queue_p20260223" not in partitions(connection, "dead_letter_queue")
    assert homes(database) == ["dead_letter_queue_p20260302"]


def test_a_letter_is_as_old_as_it_has_been_here_whatever_its_date_says(database: Engine) -> None:
    with database.begin() as connection:
        create_partitions(connection, NOW)
    for age in (timedelta(days=20_000), timedelta(weeks=1), timedelta(days=-400)):
        insert_letter(database, NOW - age)
    gone = AgedOut(("dead_letter_queue_p20260223",), rows=0, open_letters=0, kept=1)
    assert age_out(database) == gone
    assert homes(database) == ["dead_letter_queue_default"] * 3


def test_history_is_as_old_as_its_last_change_not_as_its_admission(database: Engine) -> None:
    with database.begin() as connection:
        create_partitions(connection, NOW)
        for job, changed in (("replayed", NOW), ("ended", NOW - timedelta(days=3))):
            for age in (timedelta(days=40), timedelta(weeks=1)):
                row = {"job": job, "epoch": to_us(NOW - age), "at": changed}
                connection.execute(
                    text(
                        "INSERT INTO job_ledger (job_id, epoch, version, state, updated_at) "
                        "VALUES (:job, :epoch, 9, 'accepted', :at)"
                    ),
                    row,
                )
                connection.execute(
                    text(
                        "INSERT INTO job_events (job_id, epoch, version, event, state, at) "
                        "VALUES (:job, :epoch, 9, 'replay', 'accepted', :at)"
                    ),
                    row,
                )
    for table in ("job_ledger", "job_events"):
        aged = age_out(database, table)
        assert aged == AgedOut((f"{table}_p20260223",), rows=2, open_letters=0, kept=1)
        with database.connect() as connection:
            left = connection.scalars(text(f"SELECT job_id FROM {table}")).all()  # noqa: S608
        assert left == ["replayed"] * 2


@pytest.mark.parametrize(
    "query",
    [
        (
            "SELECT failure_category, COUNT(*)\nFROM dead_letter_queue\n"
            "WHERE replayed_at IS NULL\nGROUP BY failure_category;"
        ),
        (
            "SELECT action_type, COUNT(*)\nFROM operator_audit_log\n"
            "WHERE performed_at > now() - INTERVAL '24 hours'\nGROUP BY action_type;"
        ),
        (
            "SELECT\n    COUNT(*) FILTER (WHERE replay_outcome = 'success') AS success,\n"
            "    COUNT(*) FILTER (WHERE replay_outcome = 'failed') AS failed,\n"
            "    COUNT(*) AS total\nFROM dead_letter_queue\nWHERE replayed_at IS NOT NULL;"
        ),
        (
            "PREPARE trail AS SELECT\n    action_type,\n    operator_identity,\n    reason,\n"
            "    outcome,\n    performed_at\nFROM operator_audit_log\n"
            "WHERE target_request_id = $1\nORDER BY performed_at DESC;"
        ),
    ],
)
def test_the_runbooks_own_queries_run_as_they_are_written(database: Engine, query: str) -> None:
    with database.connect() as connection:
        connection.exec_driver_sql(query)
