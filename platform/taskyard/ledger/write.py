"""Writing a batch of entries: the history as it is, the present only if it is newer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func
from sqlalchemy.dialects.postgresql import insert

from taskyard.database.tables import EVENTS, LEDGER
from taskyard.ledger.entries import Entry
from taskyard.ledger.fold import fold

__all__ = ["write"]

_KEY: Final = ("job_id", "epoch")
_FIRST: Final = ("admitted_at", "started_at")
_REPLACED: Final = ("state", "ended_at", "updated_at")


def write(connection: Connection, entries: Sequence[Entry]) -> None:
    """Store `entries` in the caller's transaction; storing them again changes nothing.

    Entries may come in any order: the version decides what is present, gaps are filled.
    """
    if not entries:
        return
    connection.execute(insert(EVENTS).on_conflict_do_nothing(), _events(entries))
    statement = insert(LEDGER)
    new, old = statement.excluded, LEDGER.c
    newer = new.version > old.version
    changes: dict[str, ColumnElement[Any]] = {
        name: func.least(old[name], new[name]) for name in _FIRST
    }
    changes |= {name: case((newer, new[name]), else_=old[name]) for name in _REPLACED}
    for name in set(old.keys()) - set(_KEY) - set(changes) - {"version"}:
        changes[name] = case(
            (newer, func.coalesce(new[name], old[name])),
            else_=func.coalesce(old[name], new[name]),
        )
    changes["version"] = func.greatest(old.version, new.version)
    upsert = statement.on_conflict_do_update(index_elements=_KEY, set_=changes)
    connection.execute(upsert, fold(entries))


def _events(entries: Sequence[Entry]) -> list[dict[str, object]]:
    unique = {(entry.job, entry.epoch, entry.version): entry for entry in entries}
    return [
        {
            "job_id": entry.job,
            "epoch": entry.epoch,
            "version": entry.version,
            "event": entry.event.value,
            "state": entry.state.value,
            "at": entry.at,
            "detail": dict(entry.detail),
        }
        for _, entry in sorted(unique.items())
    ]
