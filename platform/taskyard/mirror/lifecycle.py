"""Storing a batch of the lifecycle stream: history, ledger, and the outcome of replays."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from taskyard import ledger
from taskyard.database.bulk import PIECE_BYTES, append_rest
from taskyard.database.tables import REJECTS
from taskyard.mirror.halving import Storing, store
from taskyard.mirror.outcomes import note_outcomes
from taskyard.mirror.stream import StreamEntry
from taskyard.wire.logs import logger
from taskyard.wire.redaction import redact_text

__all__ = ["store_events"]

log = logger(__name__)

_REJECT_NAMESPACE: Final = uuid.UUID("0c7f0ad5-92a8-5bb5-9a52-31f1a4b7f0e4")
_TEXT_LENGTH: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Item:
    raw: StreamEntry
    entry: ledger.Entry


def store_events(
    connection: Connection, raws: Sequence[StreamEntry], *, unclear: bool = False
) -> None:
    """Store stream entries in the caller's transaction; storing them again changes nothing.

    `unclear` is that of `store`.
    """
    items = []
    for raw in raws:
        try:
            items.append(_Item(raw, ledger.Entry.parse(raw.fields)))
        except ValueError as error:
            _reject(connection, raw, str(error))
    store(connection, items, Storing(_write, (_salvage, _keep_bytes), _size), unclear=unclear)


def _size(item: _Item) -> int:
    return sum(len(name) + len(value) for name, value in item.raw.fields.items())


def _write(connection: Connection, items: Sequence[_Item]) -> None:
    entries = [item.entry for item in items]
    ledger.write(connection, entries)
    note_outcomes(connection, entries)


def _salvage(connection: Connection, item: _Item, why: str) -> None:
    """Store the event with its texts cleaned."""
    detail = {
        name: _clean(value)[:_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in item.entry.detail.items()
    }
    cleaned = replace(item.entry, detail=detail | {"mirror_error": _clean(why)[:500]})
    ledger.write(connection, [cleaned])
    note_outcomes(connection, [cleaned])


def _keep_bytes(connection: Connection, item: _Item, why: str) -> None:
    _reject(connection, item.raw, why)


def _reject(connection: Connection, raw: StreamEntry, why: str) -> None:
    """Keep the bytes of an entry, with ASCII alone beside them: any database holds that."""
    entry = b"\n".join(name + b"=" + value for name, value in raw.fields.items())
    values = {
        "id": uuid.uuid5(_REJECT_NAMESPACE, f"{raw.id}:{sha256(entry).hexdigest()}"),
        "entry": entry[:PIECE_BYTES],
        "mirror_error": _clean(why).encode("ascii", "backslashreplace").decode()[:2000],
    }
    if connection.execute(insert(REJECTS).values(values).on_conflict_do_nothing()).rowcount:
        append_rest(connection, REJECTS.c.entry, {"id": values["id"]}, entry)
    log.warning(
        "lifecycle entry %s cannot be stored: %s",
        raw.id,
        why,
        extra={"action": "mirror_rejected_event", "entry": raw.id},
    )


def _clean(text: str) -> str:
    return redact_text(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))
