"""Write many rows in one statement (one array per column, unnested there), or one huge value.

The statement's text is the same for any number of rows, so it is compiled once. Sending 500 rows
this way takes a third of the time that 500 statements take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

__all__ = ["PIECE_BYTES", "append_rest", "insert_from_arrays", "rows_as_arrays", "write_rows"]

# Bytes are sent as twice as many characters, and the server makes several copies of them.
PIECE_BYTES: Final = 32 * 2**20


def insert_from_arrays(table: Table, names: Sequence[str]) -> Insert:
    """Return `INSERT INTO table (names) SELECT * FROM unnest(...)`; the caller adds ON CONFLICT."""
    # One dimension is given explicitly: else SQLAlchemy would take a JSON list for a row of arrays.
    types = {name: ARRAY(table.c[name].type, dimensions=1) for name in names}
    arrays = [cast(bindparam(name, type_=types[name]), types[name]) for name in names]
    given = func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    return insert(table).from_select(list(names), select(*(given.c[name] for name in names)))


def rows_as_arrays(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the parameters of such a statement; every row has the same columns as the first."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def write_rows(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> int:
    """Execute a statement made by `insert_from_arrays` with `rows`.

    Return how many rows it changed.
    """
    return connection.execute(statement, rows_as_arrays(rows)).rowcount


def append_rest(
    connection: Connection, column: Column[bytes], key: Mapping[str, Any], value: bytes
) -> None:
    """Append `value` after its first `PIECE_BYTES` to a row, one piece per statement."""
    row = [column.table.c[name] == known for name, known in key.items()]
    for start in range(PIECE_BYTES, len(value), PIECE_BYTES):
        piece = value[start : start + PIECE_BYTES]
        grown = update(column.table).where(*row).values({column: column.concat(piece)})
        connection.execute(grown)
