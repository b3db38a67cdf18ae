"""Combine a batch of entries into one row for each job."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from taskyard.jobs import Event, State
from taskyard.jobs.states import TERMINAL
from taskyard.ledger.entries import Entry
from taskyard.wire import letter_id

__all__ = ["fold"]

_ENDED = TERMINAL | {State.DEAD_LETTERED}


def fold(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return one ledger row for each (job, epoch).

    The state is that of the entry with the highest version; the other fields are collected from all
    entries.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda entry: entry.version):
        row = _row(entry)
        known = rows.setdefault((entry.job, entry.epoch), row)
        if known is not row:
            _merge(known, row)
    return [rows[key] for key in sorted(rows)]  # the same order everywhere prevents deadlocks


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "job_id": entry.job,
        "epoch": entry.epoch,
        "version": entry.version,
        "state": entry.state.value,
        "generation": entry.number("generation"),
        "seq": entry.number("seq"),
        "job_type": entry.text("type"),
        "domain": entry.text("domain"),
        "queue": entry.text("queue"),
        "priority": entry.number("priority"),
        "attempts": entry.number("attempt"),
        "admitted_at": entry.at if entry.event is Event.ADMIT else None,
        "started_at": entry.at if entry.event is Event.BEGIN else None,
        "ended_at": entry.at if entry.state in _ENDED else None,
        "updated_at": entry.at,
        "code": entry.text("code"),
        "category": entry.text("category"),
        "worker": entry.text("worker"),
        "letter_id": _letter(entry),
    }


def _letter(entry: Entry) -> uuid.UUID | None:
    """Return a dead letter's id: from the event, or computed from epoch and generation."""
    named, generation = entry.text("letter"), entry.number("generation")
    if named is not None:
        return uuid.UUID(named)
    if entry.state is not State.DEAD_LETTERED or generation is None:
        return None
    return uuid.UUID(letter_id(entry.job, entry.epoch, generation))


def _merge(known: dict[str, Any], newer: dict[str, Any]) -> None:
    first = {name: known[name] for name in ("admitted_at", "started_at") if known[name]}
    known.update({name: value for name, value in newer.items() if value is not None})
    known.update(first, ended_at=newer["ended_at"])
