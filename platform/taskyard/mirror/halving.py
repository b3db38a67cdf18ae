"""Storing a batch although Postgres refuses some of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from taskyard.database.faults import first_line, is_refused_data

__all__ = ["store"]

T = TypeVar("T")


def store(
    connection: Connection,
    items: Sequence[T],
    write: Callable[[Connection, Sequence[T]], None],
    salvage: Callable[[Connection, T, str], None],
) -> None:
    """Write `items` in the caller's transaction, halving the batch until each refused one is alone.

    A refused item goes to `salvage` with Postgres's words. One bad row in 500 costs 9 more writes.
    Whatever is not the data's fault is raised, and nothing of the batch stands.
    """
    if not items:
        return
    refusal = _refusal(connection, items, write)
    if refusal is None:
        return
    if len(items) == 1:
        salvage(connection, items[0], refusal)
        return
    middle = len(items) // 2
    store(connection, items[:middle], write, salvage)
    store(connection, items[middle:], write, salvage)


def _refusal(
    connection: Connection,
    items: Sequence[T],
    write: Callable[[Connection, Sequence[T]], None],
) -> str | None:
    try:
        with connection.begin_nested():
            write(connection, items)
    except (DBAPIError, ValueError, OverflowError) as error:
        if not is_refused_data(error):
            raise
        return first_line(getattr(error, "orig", error))
    return None
