"""Storing a batch of the lifecycle stream: history, ledger, and the outcome of replays."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from taskyard import ledger
from taskyard.database.faults import is_refused_data
from taskyard.database.tables import REJECTS
from taskyard.mirror.halving import store
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


def store_events(connection: Connection, raws: Sequence[StreamEntry]) -> None:
    """Store stream entries in the caller's transaction; storing them again changes nothing."""
    items = []
    for raw in raws:
        try:
            items.append(_Item(raw, ledger.Entry.parse(raw.fields)))
        except ValueError as error:
            _reject(connection, raw, str(error))
    store(connection, items, _write, _salvage)


def _write(connection: Connection, items: Sequence[_Item]) -> None:
    entries = [item.entry for item in items]
    ledger.write(connection, entries)
    note_outcomes(connection, entries)


def _salvage(connection: Connection, item: _Item, why: str) -> None:
    """Store the event with its texts cleaned; if it is still refused, keep its bytes."""
    detail = {
        name: _clean(value)[:_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in item.entry.detail.items()
    }
    cleaned = replace(item.entry, detail=detail | {"mirror_error": _clean(why)[:500]})
    try:
        with connection.begin_nested():
            ledger.write(connection, [cleaned])
            note_outcomes(connection, [cleaned])
    except (DBAPIError, ValueError, OverflowError) as error:
        if not is_refused_data(error):
            raise
        _reject(connection, item.raw, why)


def _reject(connection: Connection, raw: StreamEntry, why: str) -> None:
    entry = b"\n".join(name + b"=" + value for name, value in raw.fields.items())
    values = {
        "id": uuid.uuid5(_REJECT_NAMESPACE, f"{raw.id}:{entry.hex()}"),
        "entry": entry,
        "mirror_error": _clean(why)[:2000],
    }
    connection.execute(insert(REJECTS).values(values).on_conflict_do_nothing())
    log.warning(
        "lifecycle entry %s cannot be stored: %s",
        raw.id,
        why,
        extra={"action": "mirror_rejected_event", "entry": raw.id},
    )


def _clean(text: str) -> str:
    return redact_text(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))
