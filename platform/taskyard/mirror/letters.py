"""Storing a batch of deliveries: one row a death, however often it is delivered."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import Insert, insert

from taskyard.database.bulk import insert_from_arrays, write_rows
from taskyard.database.tables import LETTERS
from taskyard.mirror.deliveries import Delivery
from taskyard.mirror.halving import store
from taskyard.mirror.reading import Readable, Unreadable, read
from taskyard.mirror.rows import junk_row, row, salvaged_row

__all__ = ["store_letters"]

log = logging.getLogger(__name__)

_KEY: Final = ("id", "decided_at")
# What operators and the job's end write; a letter that comes again must not undo it.
_OPERATORS: Final = frozenset({"status", "replayed_at", "replay_outcome", "mirrored_at"})


def store_letters(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Store `deliveries` in the caller's transaction; storing them again changes nothing."""
    items = [read(delivery) for delivery in deliveries]
    letters = _latest(item for item in items if isinstance(item, Readable))
    store(connection, letters, _write, _salvage)
    for item in items:
        if isinstance(item, Unreadable):
            _insert_once(connection, junk_row(item))


def _latest(items: Any) -> list[Readable]:
    """One item a key, the highest version: a statement may not touch a row twice."""
    latest: dict[tuple[object, object], Readable] = {}
    for item in items:
        known = latest.get((item.id, item.decided_at))
        if known is None or item.letter.version > known.letter.version:
            latest[item.id, item.decided_at] = item
    return sorted(latest.values(), key=lambda item: item.id)  # one order everywhere: no deadlocks


def _write(connection: Connection, items: Sequence[Readable]) -> None:
    rows = [row(item) for item in items]
    write_rows(connection, _upsert(tuple(rows[0])), rows)


@cache
def _upsert(names: tuple[str, ...]) -> Insert:
    statement = insert_from_arrays(LETTERS, names)
    new = statement.excluded
    changed = {name: new[name] for name in names if name not in _OPERATORS | set(_KEY)}
    return statement.on_conflict_do_update(
        index_elements=_KEY, set_=changed, where=new.version > LETTERS.c.version
    )


def _salvage(connection: Connection, item: Readable, why: str) -> None:
    _insert_once(connection, salvaged_row(item, why))


def _insert_once(connection: Connection, values: dict[str, Any]) -> None:
    """Insert unless the id is there under any time: partitions cannot hold that constraint."""
    key = int.from_bytes(values["id"].bytes[:8], signed=True)
    connection.execute(select(func.pg_advisory_xact_lock(key)))
    if connection.scalar(select(LETTERS.c.id).where(LETTERS.c.id == values["id"]).limit(1)):
        return
    connection.execute(insert(LETTERS).values(values))
    log.warning(
        "letter %s was stored raw: %s",
        values["id"],
        values["mirror_error"],
        extra={"action": "mirror_stored_raw", "letter": str(values["id"])},
    )
