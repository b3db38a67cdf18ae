"""The owner of the tables disables the triggers and changes what was sealed: each way is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, text

from support.audit import sealed, without_triggers, write
from taskyard.audit import Head, Kind
from taskyard.audit.canonical_bytes import ROW_COLUMNS, ROW_SQL, row_hash
from taskyard.audit.seal_chain import (
    GENESIS,
    append,
    cluster_of,
    follow,
    last_seal,
    seals_after,
)
from taskyard.audit.verify import verify_in
from taskyard.database.tables import SEALS

# ruff: noqa: S608 - every part of a statement stands in this file

Tamper = Callable[[Connection], None]
COPIED = ", ".join(name for name in ROW_COLUMNS if name not in {"id", "transaction_id"})


@pytest.fixture(scope="module")
def head(database: Engine) -> Head:
    """Three seals over eleven rows; the ids 5 and 6 are a gap."""
    write(database, 4)
    sealed(database)
    with database.connect() as connection:
        connection.execute(
            text("SELECT nextval(pg_get_serial_sequence('operator_audit_log', 'id'))")
        )
        connection.execute(
            text("SELECT nextval(pg_get_serial_sequence('operator_audit_log', 'id'))")
        )
    write(database, 4, on_behalf_of=None)
    sealed(database)
    write(database, 3)
    return sealed(database)


@pytest.fixture
def owner(database: Engine, head: Head) -> Iterator[Connection]:
    """A transaction in which the triggers are off, and which is rolled back."""
    del head
    with database.connect() as connection:
        without_triggers(connection)
        yield connection
        connection.rollback()


def sql(*statements: str) -> Tamper:
    def tamper(connection: Connection) -> None:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount != 0

    return tamper


def kinds(connection: Connection, *heads: Head) -> set[Kind]:
    return set(verify_in(connection, heads).counts)


def reseal(connection: Connection) -> None:
    """Compute the whole chain anew over the rows as they are now."""
    seals = [seal for page in seals_after(connection, 0) for seal in page]
    connection.execute(text("TRUNCATE audit_seals"))
    last = GENESIS
    for seal in seals:
        query = text(f"SELECT {ROW_SQL} FROM operator_audit_log WHERE id = ANY(:ids) ORDER BY id")
        rows = connection.execute(query, {"ids": list(seal.row_ids)}).mappings().all()
        made = replace(
            seal,
            row_ids=tuple(int(row["id"]) for row in rows),
            row_hashes=b"".join(row_hash(row) for row in rows),
            prev_hash=last,
        )
        made = replace(made, hash=made.digest())
        append(connection, made)
        last = made.hash


def change_and_reseal(connection: Connection) -> None:
    connection.execute(text("UPDATE operator_audit_log SET reason = 'another' WHERE id = 2"))
    reseal(connection)


def cut_the_tail(connection: Connection) -> None:
    last = last_seal(connection)
    assert last is not None
    rows = {"ids": list(last.row_ids)}
    connection.execute(text("DELETE FROM operator_audit_log WHERE id = ANY(:ids)"), rows)
    connection.execute(text("DELETE FROM audit_seals WHERE seq = :seq"), {"seq": last.seq})


def copy_under_its_id(column: str, value: str, row: int) -> Tamper:
    """Return what drops the primary key and adds a second row with the id of another."""
    columns = ", ".join(ROW_COLUMNS)
    values = columns.replace(column, value)
    return sql(
        "ALTER TABLE operator_audit_log DROP CONSTRAINT operator_audit_log_pkey",
        f"INSERT INTO operator_audit_log ({columns}) OVERRIDING SYSTEM VALUE "
        f"SELECT {values} FROM operator_audit_log WHERE id = {row}",
    )


def copy_of_a_seal(connection: Connection) -> None:
    """Add a second seal with the number of the last, so that a row counts as sealed."""
    columns = [name for name in SEALS.c.keys() if name != "row_ids"]  # noqa: SIM118 - a collection
    connection.execute(text("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_pkey"))
    connection.execute(
        text(
            f"INSERT INTO audit_seals (row_ids, {', '.join(columns)}) "
            f"SELECT '{{99}}', {', '.join(columns)} FROM audit_seals WHERE seq = 3"
        )
    )


def backdated_row(connection: Connection) -> tuple[int, bytes]:
    """Add a row of two days ago; its id and its hash."""
    row_id = connection.scalar(
        text(
            "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
            "identity_via, reason, outcome, performed_at) VALUES (gen_random_uuid(), "
            "'purge_queue', 'bob', 'local', 'x', 'applied', now() - interval '2 days') RETURNING id"
        )
    )
    query = text(f"SELECT {ROW_SQL} FROM operator_audit_log WHERE id = :id")
    row = connection.execute(query, {"id": row_id}).mappings().one()
    return int(row["id"]), row_hash(row)


def hide_behind_a_restore(inside: bool, back: bool) -> Tamper:
    """Return what seals a false row as if other servers had sealed meanwhile.

    `inside`: the seal of these servers has the row. `back`: the own servers seal again.
    """

    def tamper(connection: Connection) -> None:
        row_id, hashed = backdated_row(connection)
        last = last_seal(connection)
        assert last is not None
        own = cluster_of(connection)
        for number, cluster in enumerate(("777", own) if back else ("777",)):
            has = (cluster == "777") is inside
            last = follow(
                last,
                cluster=cluster,
                sealed_us=last.sealed_us + number + 1,
                closed_below=None,
                next_transaction=10**9,
                row_ids=(row_id,) if has else (),
                row_hashes=hashed if has else b"",
            )
            append(connection, last)

    return tamper


CHANGES = {
    "request_id": "gen_random_uuid()",
    "action_type": "'cancel_request'",
    "operator_identity": "'eve@example.com'",
    "identity_via": "'local'",
    "on_behalf_of": "NULL",
    "reason": "reason || ' '",
    "target_request_id": "'job-2'",
    "dead_letter_id": "NULL",
    "outcome": "'applied'",
    "detail": 'detail || \'{"queue": "plan"}\'',
    "performed_at": "performed_at + interval '1 microsecond'",
    "transaction_id": "'3'",
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_column_of_any_kind_is_found(owner: Connection, head: Head, column: str) -> None:
    sql(f"UPDATE operator_audit_log SET {column} = {CHANGES[column]} WHERE id = 3")(owner)

    report = verify_in(owner, [head])

    assert Kind.CHANGED in report.counts
    assert [found.row for found in report.findings if found.kind is Kind.CHANGED] == [3]


def test_the_changes_tried_are_of_every_column_but_the_id() -> None:
    assert set(CHANGES) == set(ROW_COLUMNS) - {"id"}


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        pytest.param(
            sql("UPDATE operator_audit_log SET on_behalf_of = '' WHERE id = 8"),
            {Kind.CHANGED},
            id="NULL becomes an empty text",
        ),
        pytest.param(
            sql("UPDATE operator_audit_log SET detail = '{\"n\": 1.5}' WHERE id = 1"),
            {Kind.CHANGED},
            id="another detail",
        ),
        pytest.param(
            sql("UPDATE operator_audit_log SET performed_at = 'infinity' WHERE id = 1"),
            {Kind.CHANGED},
            id="a time that is none",
        ),
        pytest.param(
            sql("DELETE FROM operator_audit_log WHERE id = 1"), {Kind.MISSING}, id="first deleted"
        ),
        pytest.param(
            sql("DELETE FROM operator_audit_log WHERE id = 8"), {Kind.MISSING}, id="middle deleted"
        ),
        pytest.param(
            sql("DELETE FROM operator_audit_log WHERE id = 13"), {Kind.MISSING}, id="last deleted"
        ),
        pytest.param(sql("TRUNCATE operator_audit_log"), {Kind.MISSING}, id="all deleted"),
        pytest.param(
            sql(
                f"INSERT INTO operator_audit_log (id, {COPIED}) OVERRIDING SYSTEM VALUE "
                f"SELECT 5, {COPIED} FROM operator_audit_log WHERE id = 4"
            ),
            {Kind.INSERTED},
            id="inserted into a gap",
        ),
        pytest.param(
            sql(
                f"INSERT INTO operator_audit_log (id, transaction_id, {COPIED}) "
                f"OVERRIDING SYSTEM VALUE SELECT 6, transaction_id, {COPIED} "
                "FROM operator_audit_log WHERE id = 7"
            ),
            {Kind.INSERTED},
            id="inserted with the transaction of its neighbour",
        ),
        pytest.param(
            sql(
                f"INSERT INTO operator_audit_log (transaction_id, {COPIED}) "
                f"SELECT transaction_id, {COPIED} FROM operator_audit_log WHERE id = 7"
            ),
            {Kind.INSERTED},
            id="a row twice, under a new id",
        ),
        pytest.param(
            sql(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome, performed_at) VALUES (gen_random_uuid(), "
                "'purge_queue', 'bob', 'local', 'It was me, a year ago', 'applied', "
                "now() - interval '1 year')"
            ),
            {Kind.BACKDATED},
            id="a new row of an earlier day",
        ),
        pytest.param(
            sql(
                "ALTER TABLE operator_audit_log ALTER id SET GENERATED BY DEFAULT",
                "UPDATE operator_audit_log SET id = -1 WHERE id = 2",
                "UPDATE operator_audit_log SET id = 2 WHERE id = 9",
                "UPDATE operator_audit_log SET id = 9 WHERE id = -1",
            ),
            {Kind.CHANGED},
            id="two ids swapped",
        ),
        pytest.param(change_and_reseal, {Kind.HEAD_DIFFERS}, id="all sealed anew"),
        pytest.param(sql("TRUNCATE audit_seals"), {Kind.HEAD_MISSING}, id="seals truncated"),
        pytest.param(cut_the_tail, {Kind.HEAD_MISSING}, id="the tail with its seal"),
        pytest.param(
            sql("DELETE FROM audit_seals WHERE seq = 2"),
            {Kind.CHAIN_BROKEN, Kind.INSERTED},
            id="a seal from the middle",
        ),
        pytest.param(
            sql("DELETE FROM audit_seals WHERE seq = 1"),
            {Kind.CHAIN_BROKEN},
            id="the first seal",
        ),
        pytest.param(
            sql("UPDATE audit_seals SET sealed_at = 'infinity' WHERE seq = 2"),
            {Kind.SEAL_CHANGED},
            id="a seal's time",
        ),
        pytest.param(
            sql(
                "UPDATE audit_seals SET row_ids = row_ids[1:2], row_hashes = "
                "substr(row_hashes, 1, 64) WHERE seq = 1"
            ),
            {Kind.SEAL_CHANGED},
            id="rows left out of a seal",
        ),
        pytest.param(
            sql("UPDATE audit_seals SET last_id = 9000000 WHERE seq = 3"),
            {Kind.SEAL_CHANGED},
            id="a seal's last id",
        ),
        pytest.param(
            sql(
                "ALTER TABLE operator_audit_log RENAME TO kept",
                "CREATE VIEW operator_audit_log AS SELECT * FROM kept "
                "WHERE id <> 2 OR current_query() LIKE '%extract(epoch%'",
            ),
            {Kind.REDEFINED},
            id="a view that hides a row from everybody but us",
        ),
        pytest.param(
            sql(
                "ALTER TABLE operator_audit_log ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY hidden ON operator_audit_log USING (id <> 2)",
            ),
            {Kind.REDEFINED},
            id="row security, of which the owner sees nothing",
        ),
        pytest.param(
            sql("CREATE RULE quiet AS ON INSERT TO operator_audit_log DO INSTEAD NOTHING"),
            {Kind.REDEFINED},
            id="a rule that drops rows to come",
        ),
        pytest.param(
            sql("UPDATE audit_seals SET row_ids = ARRAY[row_ids] WHERE seq = 2"),
            {Kind.SEAL_CHANGED},
            id="rows named in a form that nothing of ours writes",
        ),
        pytest.param(
            sql(
                "INSERT INTO audit_seals (seq, form, cluster, sealed_at, next_transaction, "
                "row_ids, row_hashes, last_id, prev_hash, hash) "
                "VALUES (-1, 1, 'x', now(), 1, '{14,15,16}', '', 0, '', '')"
            ),
            {Kind.CHAIN_BROKEN},
            id="a seal before the chain that keeps rows from being sealed",
        ),
        pytest.param(
            sql("UPDATE audit_seals SET row_ids = row_ids || row_ids[1:1] WHERE seq = 3"),
            {Kind.SEAL_CHANGED, Kind.SEALED_TWICE},
            id="a row named twice",
        ),
        pytest.param(
            copy_under_its_id("operator_identity", "'eve@example.com'", 3),
            {Kind.DUPLICATE},
            id="a second row with the id of a sealed one",
        ),
        pytest.param(
            copy_under_its_id("reason", "reason", 13),
            {Kind.DUPLICATE},
            id="the same row twice under one id",
        ),
        pytest.param(
            copy_of_a_seal, {Kind.DUPLICATE}, id="a second seal with the number of another"
        ),
        pytest.param(
            hide_behind_a_restore(inside=False, back=True),
            {Kind.BACKDATED},
            id="a row of an earlier day after a restore that never was",
        ),
        pytest.param(
            hide_behind_a_restore(inside=True, back=True),
            {Kind.BACKDATED},
            id="a row of an earlier day during a restore that never was",
        ),
        pytest.param(
            hide_behind_a_restore(inside=True, back=False),
            {Kind.BACKDATED},
            id="a row of an earlier day on servers that never were",
        ),
    ],
)
def test_every_way_to_tamper_is_found_against_an_exported_head(
    owner: Connection, head: Head, tamper: Tamper, expected: set[Kind]
) -> None:
    assert kinds(owner, head) == set()

    tamper(owner)

    assert expected <= kinds(owner, head)


def test_without_an_exported_head_the_report_says_what_it_cannot_see(
    owner: Connection, head: Head
) -> None:
    change_and_reseal(owner)

    report = verify_in(owner, [])

    assert report.intact
    assert "a completely recomputed chain would not be noticed" in report.notes[-1]
    assert kinds(owner, Head(None, head.hash)) == {Kind.HEAD_MISSING}


def test_a_head_without_its_number_is_found_in_the_chain(owner: Connection, head: Head) -> None:
    report = verify_in(owner, [Head(None, head.hash), head])

    assert (report.intact, report.heads) == (True, 2)
