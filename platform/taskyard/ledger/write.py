"""Write a batch of entries: all of the history, the current state only if it is newer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func
from sqlalchemy.dialects.postgresql import Insert

from taskyard.database.bulk_write import insert_from_arrays, write_rows
from taskyard.database.tables import EVENTS, LEDGER
from taskyard.ledger.entries import Entry
from taskyard.ledger.fold_entries import fold

__all__ = ["write", "write_present"]

_KEY: Final = ("job_id", "epoch")
_FIRST: Final = ("admitted_at", "started_at")
_REPLACED: Final = ("state", "ended_at", "updated_at")


def write(connection: Connection, entries: Sequence[Entry]) -> None:
    """Store `entries` in the caller's transaction; storing them again changes nothing.

    Entries may come in any order: the entry with the highest version decides the current state, and
    entries that come later fill gaps in the history.
    """
    if not entries:
        return
    events, jobs = _events(entries), fold(entries)
    append = insert_from_arrays(EVENTS, list(events[0])).on_conflict_do_nothing()
    write_rows(connection, append, events)
    write_rows(connection, _upsert(), jobs)


def write_present(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write only current states of jobs.

    A row replaces an older one only; each row has every column.
    """
    write_rows(connection, _upsert(), rows)


@cache
def _upsert() -> Insert:
    statement = insert_from_arrays(LEDGER, LEDGER.c.keys())
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
    return statement.on_conflict_do_update(index_elements=_KEY, set_=changes)


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
