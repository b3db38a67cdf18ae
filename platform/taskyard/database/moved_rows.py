"""Read rows that may move to another partition meanwhile.

Alone because several packages read letters by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select

__all__ = ["read_again"]


def read_again(connection: Connection, query: Select[Any]) -> Sequence[RowMapping]:
    """Return the rows of a query, which is asked once more if it finds none.

    A statement that waited while a row moved from the default partition to a new week's finds it in
    neither: it was planned with the partitions of before the wait. The next statement finds it.
    """
    return connection.execute(query).mappings().all() or connection.execute(query).mappings().all()
