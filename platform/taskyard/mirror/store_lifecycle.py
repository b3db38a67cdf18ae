"""Store a batch of the lifecycle stream: history, ledger, and the outcome of replays."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from taskyard import ledger
from taskyard.control.letters_of_ended_jobs import close_letters_of
from taskyard.database.bulk_write import PIECE_BYTES, append_rest
from taskyard.database.tables import REJECTS
from taskyard.jobs import Event
from taskyard.jobs.letter_states import OUTCOMES
from taskyard.ledger import Entry
from taskyard.mirror.bisect_batch import Storing, store
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.wire.redacted_logs import logger
from taskyard.wire.redaction import redact_text

__all__ = ["store_events"]

log = logger(__name__)

_REJECT_NAMESPACE: Final = uuid.UUID("0c7f0ad5-92a8-5bb5-9a52-31f1a4b7f0e4")
_TEXT_LENGTH: Final = 10_000
_ENDED_BY_HAND: Final = (Event.CANCEL, Event.ABORT, Event.FORCE_COMPLETE)
# A redirect increases the generation too, so a letter takes the first end of any later generation.
_STATEMENT: Final = text(
    """
    WITH ends AS (
        SELECT * FROM unnest(
            CAST(:jobs AS text[]), CAST(:epochs AS bigint[]), CAST(:generations AS integer[]),
            CAST(:versions AS bigint[]), CAST(:outcomes AS text[])
        ) AS ended (job_id, epoch, generation, version, outcome)
    ), firsts AS (
        SELECT DISTINCT ON (letter.id, letter.decided_at)
            letter.id, letter.decided_at, ends.outcome
        FROM dead_letter_queue AS letter
        JOIN ends ON ends.job_id = letter.original_request_id
            AND ends.epoch = letter.epoch AND ends.generation > letter.generation
        WHERE letter.replayed_at IS NOT NULL AND letter.replay_outcome IS NULL
        ORDER BY letter.id, letter.decided_at, ends.version
    )
    UPDATE dead_letter_queue AS letter SET replay_outcome = firsts.outcome
    FROM firsts
    WHERE letter.id = firsts.id AND letter.decided_at = firsts.decided_at
    """
)


def note_outcomes(connection: Connection, entries: Sequence[Entry]) -> None:
    """Set `replay_outcome` on the letters whose replays ended in `entries`."""
    ended = [entry for entry in entries if entry.state in OUTCOMES and entry.number("generation")]
    if not ended:
        return
    connection.execute(
        _STATEMENT,
        {
            "jobs": [entry.job for entry in ended],
            "epochs": [entry.epoch for entry in ended],
            "generations": [entry.number("generation") for entry in ended],
            "versions": [entry.version for entry in ended],
            "outcomes": [OUTCOMES[entry.state].value for entry in ended],
        },
    )


@dataclass(frozen=True, slots=True)
class _Item:
    raw: StreamEntry
    entry: ledger.Entry


def store_events(
    connection: Connection, raws: Sequence[StreamEntry], *, unclear: bool = False
) -> None:
    """Store stream entries in the caller's transaction; storing them again changes nothing.

    `unclear` is a parameter of `store`.
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
    close_letters_of(connection, {entry.job for entry in entries if entry.event in _ENDED_BY_HAND})


def _salvage(connection: Connection, item: _Item, why: str) -> None:
    """Store an event; escape the characters in its texts that Postgres cannot store."""
    detail = {
        name: _clean(value)[:_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in item.entry.detail.items()
    }
    cleaned = replace(item.entry, detail=detail | {"mirror_error": _clean(why)[:500]})
    ledger.write(connection, [cleaned])
    note_outcomes(connection, [cleaned])
    if cleaned.event in _ENDED_BY_HAND:
        close_letters_of(connection, [cleaned.job])


def _keep_bytes(connection: Connection, item: _Item, why: str) -> None:
    _reject(connection, item.raw, why)


def _reject(connection: Connection, raw: StreamEntry, why: str) -> None:
    """Store an entry's bytes, with an ASCII form of the entry that any database can store."""
    entry = b"\n".join(name + b"=" + value for name, value in raw.fields.items())
    values = {
        "id": uuid.uuid5(_REJECT_NAMESPACE, f"{raw.id}:{sha256(entry).hexdigest()}"),
        "entry": entry[:PIECE_BYTES],
        "mirror_error": _clean(why).encode("ascii", "backslashreplace").decode()[:2000],
    }
    if connection.execute(insert(REJECTS).values(values).on_conflict_do_nothing()).rowcount:
        append_rest(connection, REJECTS.c.entry, {"id": values["id"]}, entry)
    log.warning(
        "lifecycle entry %s cannot be stored as a row, so its bytes were stored: %s",
        raw.id,
        why,
        extra={"action": "mirror_rejected_event", "entry": raw.id},
    )


def _clean(text: str) -> str:
    return redact_text(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))
