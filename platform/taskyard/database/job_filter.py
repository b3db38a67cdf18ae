"""Select the rows of one job, by its whole id or by the first characters that tables show.

Dead letters and the audit log share it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, ColumnElement, and_, exists, or_
from sqlalchemy.sql.schema import Table

__all__ = ["MINIMUM_PREFIX", "of_job"]

MINIMUM_PREFIX: Final = 6


def of_job(table: Table, column: str, name: str) -> ColumnElement[bool]:
    """Return the condition that a row's job id is `name`, or begins with it if no row has it whole.

    Fewer than `MINIMUM_PREFIX` characters are always a whole id.
    """
    wanted: Column[str] = table.c[column]
    if len(name) < MINIMUM_PREFIX:
        return wanted == name
    other = table.alias()
    whole = exists().select_from(other).where(other.c[column] == name)
    return or_(wanted == name, and_(~whole, wanted.startswith(name, autoescape=True)))
