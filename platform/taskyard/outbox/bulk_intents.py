"""Intents whose writer carries them out itself, and leaves to the relay what it cannot end.

The intents are committed before anything is done, with a time from which on relays may take them:
if the writer dies, a relay carries them out.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select, update

from taskyard.database.bulk_write import insert_from_arrays, write_rows
from taskyard.database.tables import OUTBOX
from taskyard.outbox.intents import Intent

__all__ = ["finish_own", "keep_ahead", "lock_open", "put_many", "release_many"]

_COLUMNS: Final = ("id", "kind", "job_id", "epoch", "payload", "bulk")
_PUT: Final = insert_from_arrays(OUTBOX, _COLUMNS)


def put_many(connection: Connection, intents: Sequence[Intent], relay_after: timedelta) -> None:
    """Add `intents` in the caller's transaction; no relay takes them before `relay_after`.

    They are in the lane of bulk verbs.
    """
    if not intents:
        return
    rows: list[dict[str, Any]] = [
        {
            "id": intent.id,
            "kind": intent.kind,
            "job_id": intent.job_id,
            "epoch": intent.epoch,
            "payload": dict(intent.payload),
            "bulk": True,
        }
        for intent in intents
    ]
    write_rows(connection, _PUT, rows)
    _set(connection, [intent.id for intent in intents], not_before=_now() + relay_after)


def lock_open(connection: Connection, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Lock those of the intents that are open and that no relay holds; return their ids."""
    query = (
        select(OUTBOX.c.id)
        .where(OUTBOX.c.id.in_(ids), OUTBOX.c.done_at.is_(None))
        .order_by(OUTBOX.c.position)
        .with_for_update(skip_locked=True)
    )
    return set(connection.scalars(query))


def keep_ahead(connection: Connection, intent_id: uuid.UUID, relay_after: timedelta) -> bool:
    """Keep relays from an intent for another `relay_after`; return False if it is done.

    While a relay holds the intent, wait for it.
    """
    return _set_open(connection, intent_id, not_before=_now() + relay_after)


def finish_own(connection: Connection, intent_id: uuid.UUID) -> bool:
    """Mark an intent as carried out by its writer; return False if a relay has done it.

    While a relay holds the intent, wait for it. Only who gets True may answer the request.
    """
    return _set_open(connection, intent_id, done_at=_now())


def release_many(connection: Connection, ids: Collection[uuid.UUID]) -> None:
    """Leave locked intents to the relays, from now on."""
    _set(connection, ids, not_before=None)


def _now() -> Any:
    return func.clock_timestamp()


def _set_open(connection: Connection, intent_id: uuid.UUID, **values: Any) -> bool:
    still_open = (OUTBOX.c.id == intent_id) & OUTBOX.c.done_at.is_(None)
    return connection.execute(update(OUTBOX).where(still_open).values(**values)).rowcount == 1


def _set(connection: Connection, ids: Collection[uuid.UUID], **values: Any) -> None:
    if ids:
        connection.execute(update(OUTBOX).where(OUTBOX.c.id.in_(ids)).values(**values))
