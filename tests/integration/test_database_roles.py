"""The database's roles: what each may not do, and that what runs by them works all the same."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.pool import NullPool

from servers import Servers
from support.audit import age_seals, count_of, entry, write
from support.audit import sealed as sealed_by
from support.databases import (
    ROLE_PASSWORD,
    administrator_url,
    migrated_database,
    run_script,
)
from support.shell import Shell, connected_shell
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Token
from taskyard.audit import archives_in, count_unverified, verify
from taskyard.audit import write as audit_write
from taskyard.database import RoleKind, opened, role_status, roles_sql
from taskyard.database.postgres_grants import (
    FUNCTIONS,
    READER,
    READER_COLUMNS,
    READER_ROLE,
    RUNTIME,
    RUNTIME_ROLE,
)
from taskyard.errors import ServerRefused
from taskyard.jobs.states import State
from taskyard.ops.cli.checks.postgres_server import look_at
from taskyard.relay import Retention
from taskyard.settings import Settings

WHY = ("--reason", "The shop is back, ticket 12345")
REFUSED = "permission denied|must be owner|must be superuser|is append-only"


@dataclass(frozen=True)
class Database:
    """One database, by the role that reaches it."""

    owner: str
    administrator: str

    def by(self, role: str) -> str:
        made = make_url(self.owner).set(username=role, password=ROLE_PASSWORD)
        return made.render_as_string(hide_password=False)

    @property
    def runtime(self) -> str:
        return self.by(RUNTIME_ROLE)

    @property
    def reader(self) -> str:
        return self.by(READER_ROLE)


def sql_of(url: str) -> str:
    with opened(url) as engine, engine.connect() as connection:
        return roles_sql(connection)


@pytest.fixture(scope="module")
def database(servers: Servers) -> Database:
    """A database with an audit row, whose roles were made by the printed SQL."""
    owner = migrated_database(servers)
    made = Database(owner, administrator_url(servers, owner))
    run_script(made.administrator, sql_of(owner))
    for role in (RUNTIME_ROLE, READER_ROLE):
        run_script(made.administrator, f"ALTER ROLE {role} PASSWORD '{ROLE_PASSWORD}'")
    with opened(owner) as engine, engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome) "
                "VALUES (gen_random_uuid(), 'whoami', 'a', 'b', 'c', 'applied')"
            )
        )
    return made


@pytest.fixture
def as_role(database: Database) -> Iterator[Callable[[str], Engine]]:
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(opened(url))


HARM = [
    "UPDATE operator_audit_log SET reason = 'another'",
    "DELETE FROM operator_audit_log",
    "TRUNCATE operator_audit_log",
    "DROP TRIGGER operator_audit_log_append_only ON operator_audit_log",
    "ALTER TABLE operator_audit_log DISABLE TRIGGER operator_audit_log_append_only",
    "ALTER TABLE operator_audit_log DISABLE TRIGGER ALL",
    "ALTER TABLE operator_audit_log DROP CONSTRAINT operator_audit_log_action",
    "DROP TABLE operator_audit_log",
    """CREATE TRIGGER quiet BEFORE INSERT ON operator_audit_log FOR EACH ROW
    EXECUTE FUNCTION suppress_redundant_updates_trigger()""",
    "CREATE RULE quiet AS ON INSERT TO operator_audit_log DO INSTEAD NOTHING",
    """CREATE OR REPLACE FUNCTION operator_audit_log_append_only() RETURNS trigger
    LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'""",
    "DROP FUNCTION operator_audit_log_append_only() CASCADE",
    "SELECT setval(pg_get_serial_sequence('operator_audit_log', 'id'), 1)",
    "SET session_replication_role = replica",
    """INSERT INTO operator_audit_log (request_id, action_type, operator_identity, identity_via,
    reason, outcome, performed_at)
    VALUES (gen_random_uuid(), 'whoami', 'a', 'b', 'c', 'applied', now() - interval '9 days')""",
    """INSERT INTO operator_audit_log (request_id, action_type, operator_identity, identity_via,
    reason, outcome, transaction_id)
    VALUES (gen_random_uuid(), 'whoami', 'a', 'b', 'c', 'applied', 1)""",
    """INSERT INTO operator_audit_log (id, request_id, action_type, operator_identity, identity_via,
    reason, outcome) OVERRIDING SYSTEM VALUE
    VALUES (0, gen_random_uuid(), 'whoami', 'a', 'b', 'c', 'applied')""",
    "UPDATE audit_seals SET hash = 'x'",
    "DELETE FROM audit_seals",
    "TRUNCATE audit_seals",
    "DROP TABLE audit_seals",
    "DELETE FROM dead_letter_queue",
    "TRUNCATE dead_letter_queue",
    "DROP TABLE dead_letter_queue",
    "ALTER TABLE dead_letter_queue DETACH PARTITION dead_letter_queue_default",
    "DELETE FROM dead_letter_queue_default",
    "SELECT * FROM dead_letter_queue_default",
    "DELETE FROM job_events",
    "UPDATE job_events SET event = 'x'",
    "DELETE FROM operator_tokens",
    "UPDATE taskyard_schema SET version_num = '0001'",
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    """CREATE OR REPLACE FUNCTION taskyard_drop_partitions(parent text, cutoff timestamptz,
    OUT weeks text[], OUT gone bigint, OUT open_letters bigint, OUT kept bigint)
    LANGUAGE sql AS 'SELECT NULL::text[], 0::bigint, 0::bigint, 0::bigint'""",
    "ALTER FUNCTION taskyard_drop_partitions(text, timestamptz) SET search_path = pg_temp",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; CREATE TABLE mine (id int)",
    "GRANT UPDATE ON operator_audit_log TO CURRENT_USER; UPDATE operator_audit_log SET reason = ''",
    "SET ROLE taskyard",
    "COPY operator_tokens TO PROGRAM 'cat'",
]


@pytest.mark.parametrize("role", [RUNTIME_ROLE, READER_ROLE])
@pytest.mark.parametrize("statement", HARM)
@pytest.mark.filterwarnings("ignore")
def test_neither_role_changes_the_schema_or_what_was_audited(
    database: Database, as_role: Callable[[str], Engine], role: str, statement: str
) -> None:
    with (
        as_role(database.by(role)).connect() as connection,
        pytest.raises(ProgrammingError, match=REFUSED),
    ):
        connection.exec_driver_sql(statement)


def test_the_functions_of_the_owner_take_no_table_of_their_caller_for_ours(
    database: Database, as_role: Callable[[str], Engine]
) -> None:
    with as_role(database.runtime).connect() as connection:
        connection.execute(text("CREATE TEMP TABLE dead_letter_queue (mirrored_at timestamptz)"))
        connection.execute(text("CREATE TEMP TABLE pg_inherits (inhparent oid, inhrelid oid)"))
        created = connection.scalars(
            text("SELECT taskyard_create_partitions('2001-01-01', interval '0')")
        ).all()
        assert len(created) == 6
        homes = connection.scalars(
            text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = :name"),
            {"name": created[0]},
        ).all()
        assert homes == ["public"]
        connection.rollback()


def test_the_owner_creates_weeks_where_the_schema_is_the_administrators(
    servers: Servers, as_role: Callable[[str], Engine]
) -> None:
    """As `public` is before PostgreSQL 15: the owner creates there by everybody's right alone."""
    owner = migrated_database(servers)
    made = Database(owner, administrator_url(servers, owner))
    run_script(
        made.administrator,
        "ALTER SCHEMA public OWNER TO postgres; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC",
    )
    run_script(made.administrator, sql_of(owner))
    with as_role(made.runtime).begin() as connection:
        connection.execute(text("SELECT taskyard_create_partitions('2001-01-01', interval '0')"))
        assert role_status(connection).beyond == ()
    with (
        as_role(made.runtime).begin() as connection,
        pytest.raises(ProgrammingError, match="permission denied for schema"),
    ):
        connection.execute(text("CREATE TABLE mine (id int)"))


SEAL = text(
    "INSERT INTO audit_seals (seq, form, cluster, sealed_at, next_transaction, row_ids, "
    "row_hashes, last_id, archived_through, prev_hash, hash) "
    "SELECT :seq, 1, 'x', now() - interval '400 days', 1, :ids, 'x', 0, :through, 'x', 'x'"
)
ROWS = "SELECT array_agg(id) FROM operator_audit_log"


@pytest.fixture
def own(servers: Servers) -> Database:
    """A database of one test's own, with the rights of the roles."""
    owner = migrated_database(servers)
    made = Database(owner, administrator_url(servers, owner))
    run_script(made.administrator, sql_of(owner))
    return made


def test_seals_that_a_role_makes_up_remove_no_young_row(
    own: Database, as_role: Callable[[str], Engine]
) -> None:
    """It may append to the seals, and so say that anything is archived."""
    write(as_role(own.owner), 2)
    with as_role(own.runtime).connect() as connection:
        ids = connection.scalar(text(ROWS))
        connection.execute(SEAL, {"seq": 1, "ids": ids, "through": None})
        connection.execute(SEAL, {"seq": 2, "ids": [], "through": 1})
        with pytest.raises(DBAPIError, match="what was audited within the last 30 days stays"):
            connection.execute(text("SELECT taskyard_remove_archived_audit(1)"))
        connection.rollback()


def remove_once(runtime: Engine, meanwhile: Callable[[], None], owner: Engine) -> int:
    """Call the removal, and `meanwhile` as soon as it waits for a lock; how many rows went."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"

    def remove() -> int:
        with runtime.begin() as connection:
            call = text("SELECT taskyard_remove_archived_audit(1)")
            return int(connection.scalar(call) or 0)

    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(remove)
        eventually(lambda: count_of(owner, waiting) > 0 or removed.done(), "the removal waits")
        assert not removed.done()
        meanwhile()
        return removed.result(timeout=60)


def test_the_removal_waits_for_seals_that_are_being_written_and_none_are_written_meanwhile(
    own: Database, as_role: Callable[[str], Engine]
) -> None:
    """Between its checks and its deletion no seal can name a young row."""
    owner, runtime = as_role(own.owner), as_role(own.runtime)
    write(owner, 2)
    late = {"seq": 3, "ids": [1, 2], "through": None}
    with runtime.begin() as connection:
        connection.execute(SEAL, {"seq": 1, "ids": [], "through": None})
        connection.execute(SEAL, {"seq": 2, "ids": [], "through": 1})
    with runtime.connect() as other:
        other.execute(SEAL, late)
        assert remove_once(runtime, other.rollback, owner) == 0
    with runtime.begin() as connection:
        connection.execute(SEAL, {"seq": 3, "ids": [], "through": 2})
    with runtime.connect() as remover, runtime.connect() as other:
        remover.execute(text("SELECT taskyard_remove_archived_audit(2)"))
        other.execute(text("SET LOCAL lock_timeout = '100ms'"))
        with pytest.raises(ServerRefused, match="lock timeout"):
            other.execute(SEAL, {**late, "seq": 4})
        other.rollback()
        remover.commit()
    assert count_of(owner, "SELECT count(*) FROM operator_audit_log") == 2


def test_a_row_that_is_committed_during_the_removal_stays(
    own: Database, as_role: Callable[[str], Engine]
) -> None:
    """A seal may name a row that is yet to come; its time is checked where it is deleted."""
    owner, runtime = as_role(own.owner), as_role(own.runtime)
    write(owner, 1, age_days=40)
    with runtime.begin() as connection:
        connection.execute(SEAL, {"seq": 1, "ids": [1, 2, 3], "through": None})
        connection.execute(SEAL, {"seq": 2, "ids": [], "through": 1})
    with owner.connect() as other:
        # The checks only read, so they pass this lock; the deletion waits for it.
        other.execute(text("LOCK TABLE operator_audit_log IN SHARE ROW EXCLUSIVE MODE"))

        def commit_a_row() -> None:
            audit_write(other, entry())
            other.commit()

        assert remove_once(runtime, commit_a_row, owner) == 1
    assert count_of(owner, "SELECT count(*) FROM operator_audit_log") == 1


@pytest.mark.parametrize("seq", [-1, 0, 2, 2**63 - 1])
def test_a_seal_has_the_next_number_whoever_writes_it(
    own: Database, as_role: Callable[[str], Engine], seq: int
) -> None:
    """A number of the far end would leave none for the sealer; one below 1 is before the chain."""
    owner, runtime = as_role(own.owner), as_role(own.runtime)
    for engine in (owner, runtime):
        with engine.connect() as connection:
            connection.execute(text("CREATE TEMP TABLE audit_seals (seq bigint)"))
            shadow = text("INSERT INTO pg_temp.audit_seals VALUES (:seq)")
            connection.execute(shadow, {"seq": seq - 1})
            made_up = text(str(SEAL).replace("audit_seals", "public.audit_seals"))
            with pytest.raises(DBAPIError, match=f"has the number 1, not {seq}"):
                connection.execute(made_up, {"seq": seq, "ids": [], "through": None})
    write(runtime)
    assert sealed_by(runtime).seq == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dead_letter_queue SET mirrored_at = '2001-01-01'",
        "UPDATE dead_letter_queue SET decided_at = '2001-01-01'",
        "UPDATE dead_letter_queue SET id = gen_random_uuid()",
        """INSERT INTO dead_letter_queue (id, decided_at, mirrored_at)
        VALUES (gen_random_uuid(), now(), '2001-01-01')""",
        """INSERT INTO dead_letter_queue (id, decided_at) VALUES (gen_random_uuid(), now())
        ON CONFLICT (id, decided_at) DO UPDATE SET mirrored_at = '2001-01-01'""",
        # Before PostgreSQL 15 there is no MERGE.
        """MERGE INTO dead_letter_queue USING (SELECT 1) AS one ON true
        WHEN MATCHED THEN UPDATE SET mirrored_at = '2001-01-01'""",
        "UPDATE dead_letter_queue_default SET mirrored_at = '2001-01-01'",
    ],
)
def test_a_role_dates_no_letter_back_to_have_it_dropped(
    database: Database, as_role: Callable[[str], Engine], statement: str
) -> None:
    with (
        as_role(database.runtime).connect() as connection,
        pytest.raises(ProgrammingError, match=r'permission denied|at or near "MERGE"'),
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_partitions_are_not_dropped_by_a_snapshot_that_misses_younger_rows(
    database: Database, as_role: Callable[[str], Engine], level: str
) -> None:
    engine = as_role(database.runtime).execution_options(isolation_level=level)
    with (
        engine.connect() as connection,
        pytest.raises(DBAPIError, match=f"READ COMMITTED, not of {level}"),
    ):
        connection.execute(
            text("SELECT taskyard_drop_partitions('job_events', now() - interval '9 days')")
        )


STATEMENTS_OF_A_READER = [
    "SELECT body FROM dead_letter_queue",
    "SELECT * FROM dead_letter_queue",
    "SELECT args, kwargs FROM dead_letter_queue",
    "SELECT raw_envelope FROM dead_letter_queue",
    "SELECT secret_sha256 FROM operator_tokens",
    "SELECT previous_sha256 FROM operator_tokens",
    "SELECT * FROM outbox",
    "SELECT * FROM lifecycle_rejects",
    "INSERT INTO operator_grants (subject, role, granted_by) VALUES ('me', 'admin', 'me')",
    "UPDATE operator_grants SET role = 'admin'",
    """INSERT INTO outbox (id, kind, job_id, epoch, payload)
    VALUES (gen_random_uuid(), 'replay', 'j', 1, '{}')""",
    "UPDATE dead_letter_queue SET status = 'deleted'",
    "SELECT taskyard_create_partitions(now(), interval '1 day')",
    "SELECT taskyard_drop_partitions('job_events', now() - interval '9 days')",
    "SELECT taskyard_remove_archived_audit(1)",
]


@pytest.mark.parametrize("statement", STATEMENTS_OF_A_READER)
def test_a_reader_sees_no_payload_and_no_hash_and_writes_nothing(
    database: Database, as_role: Callable[[str], Engine], statement: str
) -> None:
    with (
        as_role(database.reader).connect() as connection,
        pytest.raises(ProgrammingError, match="permission denied"),
    ):
        connection.execute(text(statement))


def test_a_reader_reads_what_reports_need(
    database: Database, as_role: Callable[[str], Engine]
) -> None:
    with as_role(database.reader).connect() as connection:
        for table in READER:
            connection.execute(text(f"SELECT * FROM {table}"))  # noqa: S608 - our own names
        for table, columns in READER_COLUMNS.items():
            connection.execute(text(f"SELECT {', '.join(columns)} FROM {table}"))  # noqa: S608


def test_every_table_and_function_has_its_rights_written_down(
    database: Database, as_role: Callable[[str], Engine]
) -> None:
    with as_role(database.owner).connect() as connection:
        tables = connection.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relkind IN ('r', 'p') AND NOT relispartition"
            )
        ).all()
        functions = connection.scalars(
            text(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
                "AND prosecdef"
            )
        ).all()
    assert set(tables) == set(RUNTIME)
    assert set(functions) == {signature.partition("(")[0] for signature in FUNCTIONS}


def test_the_functions_of_the_owner_fix_their_search_path_and_are_nobodys_by_default(
    database: Database, as_role: Callable[[str], Engine]
) -> None:
    with as_role(database.owner).connect() as connection:
        rows = connection.execute(
            text(
                "SELECT proconfig, proacl::text FROM pg_proc "
                "WHERE prosecdef AND proname ~ '^taskyard_'"
            )
        ).all()
    assert len(rows) == len(FUNCTIONS)
    for config, acl in rows:
        assert "search_path=public, pg_temp" in config
        assert re.search(r"[{,]=X/", acl) is None


def test_the_sql_changes_nothing_when_it_runs_again_and_takes_what_is_too_much(
    servers: Servers, as_role: Callable[[str], Engine]
) -> None:
    own = migrated_database(servers)
    admin = administrator_url(servers, own)
    rights = text(
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "ORDER BY relname"
    )

    def granted() -> list[Any]:
        with create_engine(own, poolclass=NullPool).connect() as connection:
            return [
                (name, sorted((acl or "").strip("{}").split(",")))
                for name, acl in connection.execute(rights)
                if name in RUNTIME
            ]

    run_script(admin, sql_of(own))
    first = granted()
    run_script(own, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {RUNTIME_ROLE}, {READER_ROLE}")
    assert granted() != first
    run_script(own, f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {RUNTIME_ROLE}, {READER_ROLE}")
    run_script(own, f"GRANT ALL ON operator_audit_log TO {RUNTIME_ROLE}, {READER_ROLE}")
    for _ in range(2):
        run_script(admin, sql_of(own))
        assert granted() == first


def test_a_role_is_told_apart_and_what_it_lacks_is_named(
    database: Database, as_role: Callable[[str], Engine]
) -> None:
    kinds = {}
    for url in (database.administrator, database.owner, database.runtime, database.reader):
        with as_role(url).connect() as connection:
            status = role_status(connection)
            assert (status.lacks, status.beyond) == ((), ())
            kinds[status.name] = status.kind
    assert list(kinds.values()) == list(RoleKind)
    assert kinds[RUNTIME_ROLE] is RoleKind.RUNTIME


@pytest.fixture
def shells(tmp_path: Path, servers: Servers, database: Database) -> Callable[[str], Shell]:
    return lambda url: connected_shell(tmp_path, servers, url, TASKYARD_TRUST_LOCAL="1")


def last_finding(url: str) -> str:
    """The last finding that does not speak of seals, which a slow test's rows wait for too long."""
    found = [finding for finding in look_at(url) if "for a seal" not in finding.detail]
    return f"{found[-1].level}: {found[-1].detail}"


def test_check_says_by_which_role_it_came_and_what_that_may_do(database: Database) -> None:
    assert last_finding(database.administrator).startswith("warning: the role ")
    assert "owns the schema, so it could" in last_finding(database.owner)
    assert last_finding(database.runtime) == (
        f"ok: the role {RUNTIME_ROLE} has the rights of mirror, relay and operators, no more"
    )
    assert "may only read" in last_finding(database.reader)


def test_check_names_what_a_role_lacks_and_what_it_has_too_much(
    database: Database, shells: Callable[[str], Shell]
) -> None:
    shell, restore = shells(database.runtime), sql_of(database.owner)
    try:
        run_script(database.owner, f"REVOKE INSERT ON operator_tokens FROM {RUNTIME_ROLE}")
        ran = shell.run("check")
        assert ran.code == 3
        assert f"the role {RUNTIME_ROLE} lacks INSERT on operator_tokens" in ran.out
        assert "run what this prints: taskyard migrate --roles" in ran.out
        run_script(database.administrator, restore)
        run_script(database.owner, f"GRANT UPDATE ON operator_audit_log TO {RUNTIME_ROLE}")
        said = last_finding(database.runtime)
        assert said.startswith("warning: ")
        assert "has UPDATE on operator_audit_log, which it does not need" in said
        run_script(database.administrator, restore)
        run_script(database.owner, f"GRANT INSERT ON operator_audit_log TO {RUNTIME_ROLE}")
        assert "INSERT of every column on operator_audit_log" in last_finding(database.runtime)
    finally:
        run_script(database.administrator, restore)


@pytest.mark.parametrize(
    ("role", "grant", "excess"),
    [
        (RUNTIME_ROLE, "GRANT DELETE ON dead_letter_queue TO {}", "DELETE on dead_letter_queue"),
        (RUNTIME_ROLE, "GRANT DELETE ON operator_tokens TO {}", "DELETE on operator_tokens"),
        (
            RUNTIME_ROLE,
            "GRANT UPDATE (reason) ON operator_audit_log TO {}",
            "UPDATE of reason on operator_audit_log",
        ),
        (
            RUNTIME_ROLE,
            "GRANT INSERT (performed_at) ON operator_audit_log TO {}",
            "INSERT of performed_at on operator_audit_log",
        ),
        (
            RUNTIME_ROLE,
            "GRANT DELETE ON dead_letter_queue_default TO {}",
            "DELETE on dead_letter_queue_default",
        ),
        (
            RUNTIME_ROLE,
            "GRANT UPDATE ON SEQUENCE operator_audit_log_id_seq TO {}",
            "UPDATE on the sequence operator_audit_log_id_seq",
        ),
        (RUNTIME_ROLE, "ALTER ROLE {} CREATEROLE", "the attribute CREATEROLE"),
        (
            READER_ROLE,
            "GRANT SELECT ON operator_tokens TO {}",
            "SELECT of every column on operator_tokens",
        ),
        (READER_ROLE, "GRANT SELECT (body) ON dead_letter_queue TO {}", "SELECT of body on "),
        (READER_ROLE, "GRANT UPDATE ON restore_gate TO {}", "UPDATE on restore_gate"),
    ],
)
def test_check_names_every_right_that_a_role_does_not_need(
    database: Database, role: str, grant: str, excess: str
) -> None:
    run_script(database.administrator, grant.format(role))
    try:
        said = last_finding(database.by(role))
        assert said.startswith(f"warning: the role {role} has {excess}")
    finally:
        for name in ("dead_letter_queue_default", "SEQUENCE operator_audit_log_id_seq"):
            run_script(database.administrator, f"REVOKE ALL ON {name} FROM {role}")
        run_script(database.administrator, sql_of(database.owner))
    assert last_finding(database.by(role)).startswith("ok: ")


def test_the_command_prints_the_sql_and_goes_with_no_other_option(
    database: Database, shells: Callable[[str], Shell]
) -> None:
    shell = shells(database.owner)
    assert shell.run("migrate", "--roles").out == f"{sql_of(database.owner)}\n"
    assert shell.run("migrate", "--roles", "--json").document == {"sql": sql_of(database.owner)}
    ran = shell.run("migrate", "--roles", "--check")
    assert (ran.code, "cannot be combined with --check or --to" in ran.err) == (2, True)


def test_a_migration_by_the_runtime_role_is_refused(
    database: Database, shells: Callable[[str], Shell]
) -> None:
    ran = shells(database.runtime).run("migrate", "--to", "0001")
    assert ran.code == 3
    assert "must be owner" in ran.err or "permission denied" in ran.err


def test_the_runtime_role_seals_archives_and_deletes_and_the_reader_verifies(
    servers: Servers, database: Database, as_role: Callable[[str], Engine], tmp_path: Path
) -> None:
    own = migrated_database(servers)
    made = Database(own, administrator_url(servers, own))
    run_script(made.administrator, sql_of(own))
    owner, runtime = as_role(own), as_role(made.runtime)
    write(owner, 3, age_days=40)
    sealed_by(runtime)
    old = age_seals(owner, 40)
    write(runtime, 2)
    count_unverified(runtime, "ops", "malformed")
    with owner.begin() as connection:
        connection.execute(text("UPDATE unverified_denials SET minute = now() - interval '1 year'"))
        connection.execute(
            text(
                "INSERT INTO outbox (id, kind, job_id, epoch, payload, done_at) VALUES "
                "(gen_random_uuid(), 'replay', 'j', 1, '{}', now() - interval '1 year')"
            )
        )
    young = sealed_by(runtime)

    settings = Settings(audit_retention_days=30, audit_archive_folder=tmp_path / "archives")
    Retention(settings, runtime).run_once()

    report = verify(as_role(made.reader), [old, young], archives_in(tmp_path / "archives"))
    assert (report.findings, report.heads, report.archived, report.rows) == ([], 2, 3, 5)
    for table in ("outbox", "unverified_denials"):
        assert count_of(owner, f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - our own names


@pytest.fixture
def daemons(shells: Callable[[str], Shell], database: Database) -> Iterator[Shell]:
    """A shell of the runtime role, with mirror and relay at work by it."""
    shell = shells(database.runtime)
    files = [(shell.folder / f"{name}.log").open("w") for name in ("mirror", "relay")]
    running = [
        shell.start(name, stdout=file, stderr=subprocess.STDOUT)
        for name, file in zip(("mirror", "relay"), files, strict=True)
    ]
    try:
        yield shell
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=60)
        for file in files:
            file.close()


def test_a_jobs_whole_way_goes_by_the_runtime_role(
    daemons: Shell, servers: Servers, database: Database, tmp_path: Path
) -> None:
    settings = fresh_settings(
        servers.valkey_url(), namespace=daemons.variables["TASKYARD_NAMESPACE"]
    )
    harness = ServerHarness(settings)
    try:
        with Worker(settings, tmp_path).launch():
            job = harness.act("fail", times=1, value=7, policy={"max_retries": 0})
            assert harness.await_end(job) is State.DEAD_LETTERED

            def letters() -> list[Any]:
                found = daemons.run("dlq", "list", "--json").document
                return [row for row in found if row["original_request_id"] == job.job_id]

            (letter,) = eventually(letters, "the letter in Postgres", why=lambda: logs(daemons))
            name = letter["id"]
            assert daemons.run("dlq", "show", name, "--raw", *WHY).code == 0
            made = daemons.run("tokens", "create", "ada@example.com", "--role", "operator", *WHY)
            token = made.out.strip()
            ran = daemons.run(
                "dlq", "replay", name, *WHY, TASKYARD_TOKEN=token, TASKYARD_TRUST_LOCAL="0"
            )
            assert ran.code == 0, ran.err + logs(daemons)
            harness.await_state(job, State.COMPLETED)  # a busy relay answers later
            eventually(
                lambda: (
                    daemons.run("jobs", "show", job.job_id, "--json").document["state"]
                    == "completed"
                ),
                "the end in the ledger",
            )
        eventually(lambda: sealed(database) > 0, "a seal by the relay", why=lambda: logs(daemons))
        assert daemons.run("tokens", "rotate", Token.parse(token).id, *WHY).code == 0
        assert daemons.run("tokens", "revoke", Token.parse(token).id, *WHY).code == 0
        assert daemons.run("users", "grant", "ada@example.com", "--role", "viewer", *WHY).code == 0
        assert daemons.run("users", "revoke", "ada@example.com", *WHY).code == 0
        assert daemons.run("audit", "list").code == 0
        ran = daemons.run("reconcile", "--repair")
        assert ran.code == 0, ran.out
        assert daemons.run("reconcile", "--accept", *WHY).code == 0
        assert daemons.run("check").code == 0
    finally:
        harness.close()
    assert "permission denied" not in logs(daemons)


def logs(shell: Shell) -> str:
    return "".join((shell.folder / f"{name}.log").read_text() for name in ("mirror", "relay"))


def sealed(database: Database) -> int:
    with opened(database.owner) as engine, engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM audit_seals")) or 0)
