"""`taskyard switches list`: every pause and kill switch, and whether both stores have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from taskyard import database
from taskyard.access import Identity
from taskyard.control import reader_of
from taskyard.control.switch_request import time_text
from taskyard.control.turn_switch import newer
from taskyard.errors import ServerRefused, ServerUnreachable, TaskyardError
from taskyard.ops.cli.console import note, print_json, put, with_sentences
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.run_turn import opened_switches, state_facts
from taskyard.ops.cli.target_servers import find_target
from taskyard.settings import Settings
from taskyard.store import reachable
from taskyard.switches import Mode, SwitchesRead, SwitchField, SwitchScope, SwitchState
from taskyard.switches.postgres_switches import read_rows

__all__ = ["command", "read_switches"]

_UNKNOWN: Final = "unknown"
_AGREE: Final = "both"
_UNREADABLE: Final = "Redis, unreadable"


@dataclass(frozen=True, slots=True)
class _Shown:
    """One switch; `stores` says which store has this state."""

    field: SwitchField
    state: SwitchState
    now: str
    stores: str


def command(
    everything: Annotated[
        bool, typer.Option("--all", help="Also switches that are off in both stores.")
    ] = False,
    json: Json = False,
) -> None:
    """List the pauses and kill switches that are on, and whether Redis and Postgres agree.

    Workers and clients obey what Redis has. While a store does not answer, the list says so and
    shows the other one.
    """
    settings = find_target(quiet=json).settings
    rows, reader = _in_postgres(settings)
    read = read_switches(settings)
    shown = [
        one
        for one in _compared(rows, read)
        if _sees(reader, one.field)
        and (everything or one.now != Mode.OFF or one.stores not in (_AGREE, _UNKNOWN))
    ]
    if json:
        print_json([_facts(one) for one in shown])
        return
    columns = ("switch", "now", "since", "until", "by", "in", "reason")
    put(with_sentences(columns, [_row(one) for one in shown]))


def _in_postgres(
    settings: Settings,
) -> tuple[Mapping[SwitchField, SwitchState] | None, Identity | None]:
    """Return the rows, None while Postgres does not answer; and whose bounds limit the list."""
    try:
        with database.opened(settings.need_database_url()) as engine:
            reader = reader_of(engine, settings)
            with engine.connect() as connection:
                rows = read_rows(connection)
            return {field: row.state for field, row in rows.items()}, reader
    except (ServerUnreachable, ServerRefused) as error:
        note(f"the switches in Postgres are unknown: {error}")
        return None, None


def read_switches(settings: Settings) -> SwitchesRead | None:
    """Return the switches in Redis; None, and a line that says so, if it does not answer."""
    url = settings.need_redis_url()
    try:
        with opened_switches(settings) as switches, reachable(url):
            return switches.read()
    except TaskyardError as error:
        note(f"the switches in Redis are unknown: {error}")
        return None


def _compared(
    rows: Mapping[SwitchField, SwitchState] | None, read: SwitchesRead | None
) -> list[_Shown]:
    in_rows = rows or {}
    in_redis = {**read.believed(), **read.states} if read is not None else {}
    found = []
    for field in sorted({*in_rows, *in_redis}):
        row, state = in_rows.get(field), in_redis.get(field)
        # Workers obey Redis; of a Redis that does not answer it will be the newest.
        obeyed = state if read is not None else newer(row, state)
        if obeyed is None:
            obeyed = row if row is not None and row.mode is Mode.OFF else None
        shown = obeyed or newer(row, state)
        if shown is None:
            continue
        now = _now(obeyed, read)
        found.append(_Shown(field, shown, now, _stores(row, state, rows is None, read is None)))
    return found


def _now(obeyed: SwitchState | None, read: SwitchesRead | None) -> str:
    if read is None:
        return _UNKNOWN
    if obeyed is None or not obeyed.in_force(read.now_us):
        return Mode.OFF.value
    return obeyed.mode.value


def _stores(
    row: SwitchState | None, state: SwitchState | None, no_rows: bool, no_redis: bool
) -> str:
    """Say which store has the state; they agree within seconds while a relay runs."""
    if no_rows or no_redis:
        return _UNKNOWN
    if state is not None and state.version == 0:
        return _UNREADABLE
    versions = (row.version if row else 0, state.version if state else 0)
    if versions[0] == versions[1]:
        return _AGREE
    store = "Postgres" if versions[0] > versions[1] else "Redis"
    return f"newer in {store}"


def _sees(reader: Identity | None, field: SwitchField) -> bool:
    if reader is None:
        return True
    match field.scope:
        case SwitchScope.QUEUE:
            return reader.queues is None or field.name in reader.queues
        case SwitchScope.DOMAIN:
            return reader.domains is None or field.name in reader.domains
        case _:
            return True


def _facts(one: _Shown) -> dict[str, Any]:
    return {**state_facts(one.field, one.state), "now": one.now, "in": one.stores}


def _row(one: _Shown) -> tuple[str, ...]:
    state = one.state
    until = time_text(state.until_us) if state.until_us else ""
    by = f"{state.operator} ({state.via})" if state.operator else ""
    since = time_text(state.since_us) if state.since_us else ""
    return (str(one.field), one.now, since, until, by, one.stores, state.reason)
