"""Store a batch of deliveries: one row for each dead letter, however often it is delivered."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import Insert, insert

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.letters_of_ended_jobs import close_letters_of
from taskyard.database.bulk_write import PIECE_BYTES, append_rest, insert_from_arrays, write_rows
from taskyard.database.tables import LETTERS
from taskyard.mirror.bisect_batch import Storing, store
from taskyard.mirror.delivery_port import Delivery
from taskyard.mirror.letter_rows import in_ascii, junk_row, row, salvaged_row
from taskyard.mirror.read_delivery import Readable, Unreadable, holds_nul, read
from taskyard.mirror.unread_operator_messages import count_unread, new_unread
from taskyard.wire.redacted_logs import logger

__all__ = ["store_letters"]

log = logger(__name__)

_KEY: Final = ("id", "decided_at")
_BYTES: Final = ("body", "raw_envelope")
# Columns that operators and the job's end write; a letter that comes again must not reset them.
_OPERATORS: Final = frozenset({"status", "replayed_at", "replay_outcome", "mirrored_at"})


def store_letters(
    connection: Connection,
    deliveries: Sequence[Delivery],
    clock: Clock = SYSTEM_CLOCK,
    unclear: bool = False,
) -> None:
    """Store `deliveries` in the caller's transaction; storing them again changes nothing.

    `clock` gives the time of a message that is neither a dead letter nor has a time of its own.
    `unclear` is a parameter of `store`.
    """
    items = _without_second_times(connection, [read(delivery) for delivery in deliveries])
    letters = _latest(item for item in items if isinstance(item, Readable))
    # Thousands of letters may have NUL characters, which Postgres refuses. Halving the batch would
    # find them one by one, so they are separated first.
    clean = [item for item in letters if not holds_nul(item)]
    nul = [item for item in letters if holds_nul(item)]
    junk = [item for item in items if isinstance(item, Unreadable)]
    now = clock.now()

    def keep_bytes(connection: Connection, item: Readable, why: str) -> None:
        _insert_junk(connection, Unreadable(item.delivery, why, is_letter=True), now, in_ascii)

    unread = new_unread(connection, letters)
    ways = (_salvage, _salvage_ascii, keep_bytes)
    store(connection, clean, Storing(_write, ways, _size), unclear=unclear)
    store(connection, nul, Storing(_write_salvaged, ways, _size), unclear=unclear)
    store(connection, junk, _junk_way(now), unclear=unclear)
    count_unread(connection, unread)


def _without_second_times(
    connection: Connection, items: Sequence[Readable | Unreadable]
) -> list[Readable | Unreadable]:
    """Return the items; a letter whose id is known with another time becomes unreadable.

    All true copies of a letter have one time. With two rows of one id no operator could show or
    replay the letter, and whoever can write to the broker could do that to each letter.
    """
    ids = {item.id for item in items if isinstance(item, Readable)}
    if not ids:
        return list(items)
    query = select(LETTERS.c.id, LETTERS.c.decided_at).where(LETTERS.c.id.in_(ids))
    times: dict[uuid.UUID, set[datetime]] = {}
    for letter_id, decided_at in connection.execute(query):
        times.setdefault(letter_id, set()).add(decided_at)
    return [_with_first_time(item, times) for item in items]


def _with_first_time(
    item: Readable | Unreadable, times: dict[uuid.UUID, set[datetime]]
) -> Readable | Unreadable:
    if isinstance(item, Unreadable) or item.decided_at in times.setdefault(
        item.id, {item.decided_at}
    ):
        return item
    known = min(times[item.id])
    why = (
        f"the letter {item.id} is stored with the time {known.isoformat()}, and this copy says "
        f"{item.decided_at.isoformat()}, so a client made one of them up"
    )
    return Unreadable(item.delivery, why, is_letter=True)


def _size(item: Readable | Unreadable) -> int:
    return len(item.delivery.body)


def _junk_way(now: datetime) -> Storing[Unreadable]:
    def write(connection: Connection, items: Sequence[Unreadable]) -> None:
        for item in items:
            _insert_junk(connection, item, now, dict)

    def write_ascii(connection: Connection, item: Unreadable, _: str) -> None:
        _insert_junk(connection, item, now, in_ascii)

    # The row holds only the bytes, which are written in pieces: none is too large for Postgres.
    return Storing(write, [write_ascii], lambda _: 0)


def _latest(items: Iterable[Readable]) -> list[Readable]:
    """Return the highest version for each key: a statement may not change a row twice."""
    latest: dict[tuple[object, object], Readable] = {}
    for item in items:
        known = latest.get((item.id, item.decided_at))
        if known is None or item.letter.version > known.letter.version:
            latest[item.id, item.decided_at] = item
    # The same order everywhere prevents deadlocks.
    return sorted(latest.values(), key=lambda item: item.id)


def _write(connection: Connection, items: Sequence[Readable]) -> None:
    _write_all(connection, [row(item) for item in items])


def _write_salvaged(connection: Connection, items: Sequence[Readable]) -> None:
    why = "the letter holds a NUL character, which PostgreSQL does not store"
    _write_all(connection, [salvaged_row(item, why) for item in items])


def _salvage(connection: Connection, item: Readable, why: str) -> None:
    _write_all(connection, [salvaged_row(item, why)])
    _log_raw(item.id, why)


def _salvage_ascii(connection: Connection, item: Readable, why: str) -> None:
    _write_all(connection, [in_ascii(salvaged_row(item, why))])
    _log_raw(item.id, why)


def _write_all(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    large = [one for one in rows if any(len(value) > PIECE_BYTES for value in _bytes_of(one))]
    together = [one for one in rows if not any(one is other for other in large)]
    if together:
        write_rows(connection, _upsert(tuple(together[0])), together)
    for one in large:
        # If the first piece changes nothing, the row has all pieces of this letter already.
        if write_rows(connection, _upsert(tuple(one)), [_first_pieces(one)]):
            _append_rest(connection, one)
    jobs = {one["original_request_id"] for one in rows}
    close_letters_of(connection, jobs - {None})


def _bytes_of(row: dict[str, Any]) -> list[bytes]:
    return [row[name] for name in _BYTES if row.get(name) is not None]


def _first_pieces(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: row[name][:PIECE_BYTES] for name in _BYTES if row.get(name) is not None}


def _append_rest(connection: Connection, row: dict[str, Any]) -> None:
    key = {name: row[name] for name in _KEY}
    for name in _BYTES:
        append_rest(connection, LETTERS.c[name], key, row.get(name) or b"")


@cache
def _upsert(names: tuple[str, ...]) -> Insert:
    statement = insert_from_arrays(LETTERS, names)
    new = statement.excluded
    changed = {name: new[name] for name in names if name not in _OPERATORS | set(_KEY)}
    return statement.on_conflict_do_update(
        index_elements=_KEY, set_=changed, where=new.version > LETTERS.c.version
    )


def _insert_junk(
    connection: Connection,
    item: Unreadable,
    now: datetime,
    spelled: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Insert a row unless its id exists, with any time.

    No constraint over partitions can check this.
    """
    values = spelled(junk_row(item, now))
    key = int.from_bytes(values["id"].bytes[:8], signed=True)
    connection.execute(select(func.pg_advisory_xact_lock(key)))
    if connection.scalar(select(LETTERS.c.id).where(LETTERS.c.id == values["id"]).limit(1)):
        return
    connection.execute(insert(LETTERS).values(_first_pieces(values)))
    _append_rest(connection, values)
    _log_raw(values["id"], values["mirror_error"])


def _log_raw(letter_id: uuid.UUID, why: str) -> None:
    log.warning(
        "dead letter %s could not be stored as a row, so its bytes were stored: %s",
        letter_id,
        why,
        extra={"action": "mirror_stored_raw", "letter": str(letter_id)},
    )
