"""Read the dead letters of a batch of replays in one statement, as many as fit into memory.

Alone because a letter may have moved to another partition while the statement waited.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, select

from taskyard.database.tables import LETTERS

__all__ = ["MOST_BYTES", "read_letters"]

MOST_BYTES: Final = 16 * 2**20
"""Letters of more bytes are left to the next batch; one letter is read, whatever its size."""

# What is sent, not what it takes on the disk.
_SIZE: Final = func.coalesce(func.octet_length(LETTERS.c.body), 0) + func.coalesce(
    func.octet_length(LETTERS.c.raw_envelope), 0
)
_READ: Final = tuple(
    LETTERS.c[name]
    for name in (
        "id",
        "generation",
        "job_type",
        "queue",
        "priority",
        "body",
        "headers",
        "properties",
        "content_type",
        "content_encoding",
        "mirror_error",
        "raw_envelope",
    )
)


def read_letters(
    connection: Connection, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Mapping[str, Any] | None]:
    """Return the dead letters by their ids, None for one that Postgres does not have.

    Those that did not fit into `MOST_BYTES` together are left out; the first ones come first.
    """
    fitting = _fitting(connection, ids)
    found = _read(connection, fitting)
    # A statement that waited while a row moved from the default partition to a new week's finds it
    # in neither (it was planned with the partitions of before the wait): the next one does.
    missing = [each for each in fitting if each not in found]
    found |= _read(connection, missing)
    return {each: found.get(each) for each in fitting}


def _read(connection: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Mapping[str, Any]]:
    if not ids:
        return {}
    rows = connection.execute(select(*_READ).where(LETTERS.c.id.in_(ids))).mappings()
    return {row["id"]: dict(row) for row in rows}


def _fitting(connection: Connection, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    if len(ids) < 2:  # noqa: PLR2004 - one letter is read, whatever its size
        return list(ids)
    query = select(LETTERS.c.id, _SIZE.label("size")).where(LETTERS.c.id.in_(ids))
    sizes = {row.id: row.size for row in connection.execute(query)}
    fitting: list[uuid.UUID] = []
    left = MOST_BYTES
    for each in ids:
        left -= sizes.get(each, 0)
        if left < 0 and fitting:
            break
        fitting.append(each)
    return fitting
