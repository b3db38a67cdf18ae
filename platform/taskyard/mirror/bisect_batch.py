"""Store a batch although Postgres refuses some of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection

from taskyard.database.postgres_errors import (
    REFUSALS,
    Refusal,
    cause_of,
    first_line,
    is_moved_partition,
    refusal_of_values,
)

__all__ = ["BATCH_BYTES", "WHOLE_BYTES", "Storing", "store"]

T = TypeVar("T")

# A statement of over 1 GB ends the connection, and a value is sent in up to three times its size.
BATCH_BYTES: Final = 16 * 2**20
WHOLE_BYTES: Final = 256 * 2**20
_TRIES: Final = 3
_REFUSED: Final = frozenset({Refusal.DATA})


@dataclass(frozen=True, slots=True)
class Storing(Generic[T]):
    """How items of one kind are written: as a batch, or one by one where one is refused."""

    write: Callable[[Connection, Sequence[T]], None]
    salvage: Sequence[Callable[[Connection, T, str], None]]
    """What to try with an item that was refused: the most complete form first. The last form can "
    "always be stored."""
    size: Callable[[T], int]
    """About how many bytes an item has."""


def store(
    connection: Connection, items: Sequence[T], way: Storing[T], *, unclear: bool = False
) -> None:
    """Write `items` in the caller's transaction; halve the batch until each refused item is alone.

    One bad row in 500 costs 9 more writes. An error that is not the data's fault is raised, and
    then no row of the batch is stored. With `unclear`, a refusal that does not show whose fault it
    is counts as the data's fault.
    """
    if not items:
        return
    refused = _REFUSED | {Refusal.UNCLEAR} if unclear else _REFUSED
    if len(items) == 1:
        _store_one(connection, items[0], way, refused)
        return
    if (
        sum(map(way.size, items)) > BATCH_BYTES
        or _refusal(connection, lambda: way.write(connection, items), refused) is not None
    ):
        middle = len(items) // 2
        store(connection, items[:middle], way, unclear=unclear)
        store(connection, items[middle:], way, unclear=unclear)


def _store_one(
    connection: Connection, item: T, way: Storing[T], refused: frozenset[Refusal]
) -> None:
    if way.size(item) > WHOLE_BYTES:
        why: str | None = f"it has {way.size(item)} bytes, more than fit into one statement"
    else:
        why = _refusal(connection, lambda: way.write(connection, [item]), refused)
    if why is None:
        return
    *tried, last = way.salvage
    for salvage in tried:
        if _refusal(connection, _bound(salvage, connection, item, why), refused) is None:
            return
    last(connection, item, why)


def _bound(
    salvage: Callable[[Connection, T, str], None], connection: Connection, item: T, why: str
) -> Callable[[], None]:
    return lambda: salvage(connection, item, why)


def _refusal(
    connection: Connection,
    write: Callable[[], None],
    refused: frozenset[Refusal],
    tries: int = _TRIES,
) -> str | None:
    """Return why Postgres, or the driver, refuses the `write`; None if the write succeeds."""
    try:
        with connection.begin_nested():
            write()
    except REFUSALS as error:
        cause = cause_of(error)
        if is_moved_partition(cause) and tries > 1:
            # The next plan includes the week that was attached meanwhile.
            return _refusal(connection, write, refused, tries - 1)
        if refusal_of_values(error) not in refused:
            raise
        return first_line(cause)
    return None
