"""Find the rights that the connected role has beyond those that it needs.

Postgres' own functions are asked, so rights count that come by another role, or by PUBLIC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

__all__ = ["Needed", "excess_rights"]

_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_OF_COLUMNS: Final = ("SELECT", "INSERT", "UPDATE")
# A right on a partition reaches its rows without the right on its table.
_OURS: Final = """
    WITH named AS (
        SELECT to_regclass(quote_ident(name))::oid AS oid, name
        FROM unnest(CAST(:tables AS text[])) AS name
    ), ours AS (
        SELECT oid, name FROM named
        UNION ALL
        SELECT part.oid, part.relname::text FROM named
        JOIN pg_inherits ON inhparent = named.oid JOIN pg_class AS part ON part.oid = inhrelid
    )
"""
_TABLES: Final = text(
    f"""
    {_OURS} SELECT name, held FROM ours, unnest(CAST(:rights AS text[])) AS held
    WHERE has_table_privilege(oid, held) ORDER BY name, held
    """  # noqa: S608 - constants
)
_COLUMNS: Final = text(
    f"""
    {_OURS} SELECT name, attname::text, held FROM ours
    JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped,
        unnest(CAST(:rights AS text[])) AS held
    WHERE NOT has_table_privilege(oid, held) AND has_column_privilege(oid, attnum, held)
    ORDER BY name, attname, held
    """  # noqa: S608 - constants
)
# With UPDATE on a sequence its next numbers can be set back.
_SEQUENCES: Final = text(
    f"""
    {_OURS} SELECT DISTINCT number.relname::text FROM ours
    JOIN pg_depend ON refobjid = ours.oid AND refclassid = 'pg_class'::regclass
        AND classid = 'pg_class'::regclass
    JOIN pg_class AS number ON number.oid = objid
    WHERE CASE number.relkind WHEN 'S' THEN has_sequence_privilege(number.oid, 'UPDATE') END
    ORDER BY 1
    """  # noqa: S608 - constants
)
_ATTRIBUTES: Final = text(
    """
    SELECT attribute FROM pg_roles, LATERAL (VALUES ('CREATEDB', rolcreatedb),
        ('CREATEROLE', rolcreaterole), ('REPLICATION', rolreplication),
        ('BYPASSRLS', rolbypassrls)) AS held (attribute, has)
    WHERE rolname = current_user AND has ORDER BY attribute
    """
)
_CREATE: Final = text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
_EXECUTE: Final = text("SELECT has_function_privilege(:function, 'EXECUTE')")


@dataclass(frozen=True, slots=True)
class Needed:
    """The rights that a kind of role needs.

    `tables`: table -> rights; `columns`: table -> right -> columns. `others` are functions that it
    does not need.
    """

    tables: Mapping[str, Sequence[str]]
    columns: Mapping[str, Mapping[str, Sequence[str]]]
    others: Sequence[str] = field(default=())


def excess_rights(connection: Connection, tables: Sequence[str], needed: Needed) -> Iterator[str]:
    """Yield each right that the role has on `tables` and does not need."""
    ours = {"tables": list(tables)}
    for table, right in connection.execute(_TABLES, {**ours, "rights": list(_RIGHTS)}):
        if right not in needed.tables.get(table, ()):
            some = right in needed.columns.get(table, {})
            yield f"{right} of every column on {table}" if some else f"{right} on {table}"
    columns = connection.execute(_COLUMNS, {**ours, "rights": list(_OF_COLUMNS)})
    for table, column, right in columns:
        if column not in needed.columns.get(table, {}).get(right, ()):
            yield f"{right} of {column} on {table}"
    for sequence in connection.scalars(_SEQUENCES, ours):
        yield f"UPDATE on the sequence {sequence}"
    for function in needed.others:
        if connection.scalar(_EXECUTE, {"function": function}):
            yield f"EXECUTE on {function.partition('(')[0]}"
    if connection.scalar(_CREATE):
        yield "CREATE on the schema"
    for attribute in connection.scalars(_ATTRIBUTES):
        yield f"the attribute {attribute}"
