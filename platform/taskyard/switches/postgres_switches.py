"""The switches in Postgres: the table `switches`, a row for each field, also when it is off."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from taskyard.database.tables import SWITCHES
from taskyard.switches.switch_field import SwitchField
from taskyard.switches.switch_state import Mode, SwitchState

__all__ = ["SwitchRow", "clock_us", "note_answered", "read_row", "read_rows", "store"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
# A row that is not there yet cannot be locked.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('switch:' || :field, 0))")


@dataclass(frozen=True, slots=True)
class SwitchRow:
    """The state in Postgres; `unanswered` are requests whose audit rows have no outcome yet."""

    state: SwitchState
    unanswered: tuple[uuid.UUID, ...] = ()


def clock_us(connection: Connection) -> int:
    """Return the time of Postgres in microseconds."""
    now = connection.scalar(select(func.clock_timestamp()))
    assert now is not None  # noqa: S101 - a function of the server always has a value
    return _us(now)


def read_rows(connection: Connection) -> dict[SwitchField, SwitchRow]:
    """Return every row by its field."""
    rows = connection.execute(select(SWITCHES).order_by(SWITCHES.c.field))
    return {SwitchField.parse(row.field): _parsed(row) for row in rows}


def read_row(connection: Connection, field: SwitchField) -> SwitchRow | None:
    """Lock a field until the caller's transaction ends, and return its row."""
    connection.execute(_LOCK, {"field": str(field)})
    query = select(SWITCHES).where(SWITCHES.c.field == str(field))
    row = connection.execute(query).one_or_none()
    return None if row is None else _parsed(row)


def store(
    connection: Connection,
    field: SwitchField,
    state: SwitchState,
    request: uuid.UUID | None = None,
) -> bool:
    """Set a row, unless its state has at least this version; return whether it was set.

    `request` is noted as unanswered.
    """
    values = {
        "mode": state.mode.value,
        "version": state.version,
        "since": _time(state.since_us),
        "until_at": _time(state.until_us) if state.until_us else None,
        "operator": state.operator,
        "via": state.via,
        "reason": state.reason,
        "request_id": state.request_id,
    }
    asked = [] if request is None else [request]
    made = insert(SWITCHES).values(field=str(field), unanswered=asked, **values)
    waiting = SWITCHES.c.unanswered.op("||")(made.excluded.unanswered)
    change = made.on_conflict_do_update(
        index_elements=["field"],
        set_={**values, "unanswered": waiting},
        where=SWITCHES.c.version < state.version,
    )
    return connection.execute(change).rowcount > 0


def note_answered(
    connection: Connection, field: SwitchField, requests: Iterable[uuid.UUID]
) -> None:
    """Note that requests have an outcome; the caller has locked the field."""
    left: Any = SWITCHES.c.unanswered
    for request in requests:
        left = func.array_remove(left, request)
    change = update(SWITCHES).where(SWITCHES.c.field == str(field)).values(unanswered=left)
    connection.execute(change)


def _parsed(row: Row[Any]) -> SwitchRow:
    state = SwitchState(
        Mode(row.mode),
        version=row.version,
        since_us=_us(row.since),
        until_us=0 if row.until_at is None else _us(row.until_at),
        operator=row.operator,
        via=row.via,
        reason=row.reason,
        request_id=row.request_id,
    )
    return SwitchRow(state, tuple(row.unanswered))


# Floats of seconds would lose the last digit.
def _time(us: int) -> datetime:
    return _EPOCH + us * _US


def _us(time: datetime) -> int:
    return (time - _EPOCH) // _US
