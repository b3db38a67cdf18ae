"""The roles of the database: their rights on each table, as SQL to run and as rights to compare.

The owner runs `migrate`; no other process needs the owner. Mirror, relay and operators use the
runtime role: it can write rows, but it cannot create or drop tables, or change audit rows. The
reader role sees no captured message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, text

from taskyard.database.excess_rights import Needed, excess_rights
from taskyard.database.tables import AUDIT, LETTERS, METADATA, TOKENS

__all__ = [
    "FUNCTIONS",
    "READER",
    "READER_COLUMNS",
    "READER_ROLE",
    "RUNTIME",
    "RUNTIME_COLUMNS",
    "RUNTIME_ROLE",
    "RoleKind",
    "RoleStatus",
    "role_status",
    "roles_sql",
]

RUNTIME_ROLE: Final = "taskyard_runtime"
READER_ROLE: Final = "taskyard_reader"
_VERSIONS: Final = "taskyard_schema"
_APPENDED: Final = ("SELECT", "INSERT")
_CHANGED: Final = ("SELECT", "INSERT", "UPDATE")

# Table -> what the runtime role may do with it. Nothing else does it need.
RUNTIME: Final[Mapping[str, tuple[str, ...]]] = {
    "dead_letter_queue": ("SELECT",),  # and by columns, below
    "job_ledger": _CHANGED,
    "job_events": _APPENDED,
    "lifecycle_rejects": _CHANGED,
    "operator_audit_log": ("SELECT",),  # and by columns, below
    "audit_seals": _APPENDED,
    "unverified_denials": (*_CHANGED, "DELETE"),
    "outbox": (*_CHANGED, "DELETE"),
    "restore_gate": _CHANGED,
    # A switch that is off stays as a row, so that no older state comes back.
    "switches": _CHANGED,
    "operator_tokens": _CHANGED,
    "operator_grants": (*_CHANGED, "DELETE"),
    "operator_nonces": ("SELECT", "INSERT", "DELETE"),
    _VERSIONS: ("SELECT",),
}
# Table -> right -> columns that the right leaves out. Of an audit row the server itself sets
# number, time and transaction, so that none can be dated back: what was done elsewhere has its own
# time in `detail`. A letter's age and its week decide when the letter is dropped, so neither may
# change: the server sets when it was mirrored, and its key stays.
_KEPT_FROM: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    AUDIT.name: {"INSERT": frozenset({"id", "performed_at", "transaction_id"})},
    LETTERS.name: {
        "INSERT": frozenset({"mirrored_at"}),
        "UPDATE": frozenset({"id", "decided_at", "mirrored_at"}),
    },
}
RUNTIME_COLUMNS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    table: {
        right: tuple(column.name for column in METADATA.tables[table].c if column.name not in kept)
        for right, kept in rights.items()
    }
    for table, rights in _KEPT_FROM.items()
}
# Functions of the owner, which do for their callers what these may not do themselves.
FUNCTIONS: Final = (
    "taskyard_create_partitions(timestamptz, interval)",
    "taskyard_drop_partitions(text, timestamptz)",
    "taskyard_remove_archived_audit(bigint)",
)
# What a captured message holds; reading it is a right of its own, which Postgres cannot audit.
_PAYLOAD: Final = frozenset(
    {"body", "headers", "properties", "args", "kwargs", "raw_envelope", "evidence"}
)
_SECRETS: Final = frozenset({"secret_sha256", "previous_sha256"})
_HIDDEN: Final = {LETTERS.name: _PAYLOAD, TOKENS.name: _SECRETS}
# Tables that hold messages and events as bytes.
_UNREAD: Final = frozenset({"lifecycle_rejects", "outbox"})
READER: Final = tuple(name for name in RUNTIME if name not in {*_HIDDEN, *_UNREAD})
READER_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    table: tuple(column.name for column in METADATA.tables[table].c if column.name not in hidden)
    for table, hidden in _HIDDEN.items()
}
_NEEDED_TO_RUN: Final = Needed(RUNTIME, RUNTIME_COLUMNS)
_NEEDED_TO_READ: Final = Needed(
    dict.fromkeys(READER, ("SELECT",)),
    {table: {"SELECT": columns} for table, columns in READER_COLUMNS.items()},
    others=FUNCTIONS,
)


class RoleKind(StrEnum):
    """The kind of role that a connection has: superuser, owner, runtime or reader."""

    SUPERUSER = "superuser"
    OWNER = "owner"
    RUNTIME = "runtime"
    READER = "read-only"


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """The role of a connection, and how its rights differ from those that it needs.

    `lacks` has the rights that a runtime role needs and does not have, each as text such as
    "INSERT on job_ledger". `beyond` has the rights that a runtime or read-only role has and does
    not need. Both are empty for a superuser and for the owner, who have every right.
    """

    name: str
    kind: RoleKind
    lacks: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()


def role_status(connection: Connection) -> RoleStatus:
    """Return the status of the connection's role; the schema must exist."""
    name, is_superuser, is_owner, writes = connection.execute(_ROLE).one()
    if is_superuser:
        return RoleStatus(name, RoleKind.SUPERUSER)
    if is_owner:
        return RoleStatus(name, RoleKind.OWNER)
    if not writes:
        excess = tuple(excess_rights(connection, tuple(RUNTIME), _NEEDED_TO_READ))
        return RoleStatus(name, RoleKind.READER, beyond=excess)
    excess = tuple(excess_rights(connection, tuple(RUNTIME), _NEEDED_TO_RUN))
    return RoleStatus(name, RoleKind.RUNTIME, tuple(_lacks(connection)), excess)


_ROLE: Final = text(
    """
    SELECT current_user, rolsuper,
        pg_has_role(current_user, (SELECT relowner FROM pg_class
            WHERE oid = 'operator_audit_log'::regclass), 'MEMBER'),
        has_any_column_privilege('operator_audit_log', 'INSERT')
    FROM pg_roles WHERE rolname = current_user
    """
)
_TABLE_RIGHT: Final = text("SELECT has_table_privilege(:table, :right)")
_COLUMN_RIGHT: Final = text("SELECT has_column_privilege(:table, :column, :right)")
_FUNCTION_RIGHT: Final = text("SELECT has_function_privilege(:function, 'EXECUTE')")


def _lacks(connection: Connection) -> Iterator[str]:
    for table, rights in RUNTIME.items():
        for right in rights:
            if not connection.scalar(_TABLE_RIGHT, {"table": table, "right": right}):
                yield f"{right} on {table}"
    for table, by_right in RUNTIME_COLUMNS.items():
        for right, columns in by_right.items():
            for column in columns:
                if not _has_column(connection, table, column, right):
                    yield f"{right} of {column} on {table}"
    for function in FUNCTIONS:
        if not connection.scalar(_FUNCTION_RIGHT, {"function": function}):
            yield f"EXECUTE on {function.partition('(')[0]}"


def _has_column(connection: Connection, table: str, column: str, right: str) -> bool:
    values = {"table": table, "column": column, "right": right}
    return bool(connection.scalar(_COLUMN_RIGHT, values))


def roles_sql(connection: Connection) -> str:
    """Return the SQL that creates the runtime role and the reader role, and grants their rights.

    The rights are those in this database and schema. A second run changes nothing. After a
    migration, run the SQL again: it grants the rights on what the migration added.
    """
    database, schema, owner = connection.execute(_PLACE).one()
    roles = f"{RUNTIME_ROLE}, {READER_ROLE}"
    return "\n".join(
        (
            f"-- Roles of Taskyard in the database {database}, schema {schema}, owned by {owner}.",
            "-- Run this as a superuser, in psql. The new roles have no password; set one before",
            f"-- a role logs in with a password: \\password {RUNTIME_ROLE}",
            "BEGIN;",
            *(_create(role) for role in (RUNTIME_ROLE, READER_ROLE)),
            *(_without_attributes(role) for role in (RUNTIME_ROLE, READER_ROLE)),
            f"GRANT CONNECT ON DATABASE {database} TO {roles};",
            f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {roles};",
            f"GRANT USAGE ON SCHEMA {schema} TO {roles};",
            # Before PostgreSQL 15 the schema `public` is the administrator's, and the owner creates
            # tables in it by the right that was just taken from everybody.
            f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {owner};",
            *(f"REVOKE ALL ON {schema}.{table} FROM {roles};" for table in RUNTIME),
            *(
                f"GRANT {', '.join(rights)} ON {schema}.{table} TO {RUNTIME_ROLE};"
                for table, rights in RUNTIME.items()
            ),
            *(
                f"GRANT {right} ({', '.join(columns)}) ON {schema}.{table} TO {RUNTIME_ROLE};"
                for table, by_right in RUNTIME_COLUMNS.items()
                for right, columns in by_right.items()
            ),
            *(f"GRANT EXECUTE ON FUNCTION {schema}.{f} TO {RUNTIME_ROLE};" for f in FUNCTIONS),
            *(f"GRANT SELECT ON {schema}.{table} TO {READER_ROLE};" for table in READER),
            *(
                f"GRANT SELECT ({', '.join(columns)}) ON {schema}.{table} TO {READER_ROLE};"
                for table, columns in READER_COLUMNS.items()
            ),
            "COMMIT;",
        )
    )


_PLACE: Final = text(
    """
    SELECT quote_ident(current_database()), quote_ident(current_schema()),
        quote_ident(pg_get_userbyid(relowner))
    FROM pg_class WHERE oid = 'operator_audit_log'::regclass
    """
)


def _create(role: str) -> str:
    return (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN "
        f"CREATE ROLE {role} LOGIN; END IF; END $$;"
    )


def _without_attributes(role: str) -> str:
    # Only where there are some: an administrator who is no superuser may not name all of them.
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND (rolcreatedb OR "
        "rolcreaterole OR rolreplication OR rolbypassrls)) THEN "
        f"ALTER ROLE {role} NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS; END IF; END $$;"
    )
