"""Pause, resume, kill switch on and off: permit, validate, act, audit, in one place.

The row of the table `switches` is the truth, committed with the audit row of the request. Then the
state goes to Redis, here at once, or by the relay, which compares both stores every two seconds.
The audit row gets its outcome when Redis has the state.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from taskyard import audit
from taskyard.access import Identity
from taskyard.audit import Outcome
from taskyard.clock import from_us
from taskyard.control.operator_reasons import Mode as ReasonMode
from taskyard.control.operator_reasons import check_reason
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.control.switch_request import KnownNames, SwitchRequest, next_state, permit, turned_by
from taskyard.database.postgres_errors import reasons
from taskyard.errors import ServerUnreachable
from taskyard.switches import (
    Mode,
    RedisSwitches,
    SwitchesRead,
    SwitchField,
    SwitchState,
    next_version,
)
from taskyard.switches.postgres_switches import clock_us, note_answered, read_row, store
from taskyard.wire.redacted_logs import logger

__all__ = [
    "SwitchTurned",
    "carry_over",
    "detail_of",
    "naming_break_glass",
    "newer",
    "turn_switch",
]

log = logger(__name__)

_WAITS: Final = (
    "Redis does not answer, or refuses it, so workers and clients do not know of it yet. The relay "
    "puts it there as soon as Redis takes it"
)
_WITHOUT_POSTGRES: Final = (
    "Nothing was changed. Pause and kill switch work without Postgres too, where you can sign with "
    "a key of the key ring or are this machine's trusted user: repeat the command with "
    "--break-glass. See: taskyard kill on --help"
)


@dataclass(frozen=True, slots=True)
class SwitchTurned:
    """A switch that was turned on or off: its state before and now.

    `outcome` is `applied` where Redis has the state, so that it is in force; `pending` where the
    relay will put it there, and `why` says so; `dry_run` where nothing was changed.
    """

    request_id: uuid.UUID
    field: SwitchField
    state: SwitchState
    former: SwitchState | None
    outcome: str
    why: str = ""


def turn_switch(
    engine: Engine,
    switches: RedisSwitches,
    request: SwitchRequest,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
    require_reason: ReasonMode = "strict",
    names: Callable[[], KnownNames] | None = None,
    dry_run: bool = False,
) -> SwitchTurned:
    """Turn a switch on or off; row and audit row are one transaction.

    `names` returns the names that a switch may be turned on for; without it any name will do. A
    switch that is on may be turned on again, for another mode, end or reason. With `dry_run`
    nothing is changed and nothing is audited but a refusal.

    Raises `NotPermitted`, `InvalidReason`, `InvalidSwitch` and `Refused`; each is audited. Raises
    `ServerUnreachable` without Postgres: see `break_glass`.
    """
    call = VerbCall(request.action, identity, reason, on_behalf_of)
    with naming_break_glass(), audited(engine, call):
        call.permit()
        if not dry_run:
            call.reason = check_reason(reason, require_reason)
        field = request.field()
        call.target_request_id = str(field)
        permit(identity, request.action, field)
        if names is not None and request.mode is not Mode.OFF:
            names().check(field)
        seen = _read_redis(switches)
        with engine.begin() as connection:
            state, former = _next_state(connection, call, request, field, seen)
            if dry_run:
                return SwitchTurned(call.request_id, field, state, former, "dry_run")
            store(connection, field, state, call.request_id)
            detail = {"switch": detail_of(state), "was": _was(former)}
            call.write(connection, Outcome.REQUESTED, detail)
    why = "" if carry_over(engine, switches, field) else _WAITS
    outcome = "pending" if why else Outcome.APPLIED.value
    return SwitchTurned(call.request_id, field, state, former, outcome, why)


def _read_redis(switches: RedisSwitches) -> SwitchesRead | None:
    """Return the switches in Redis; None where it does not answer, which stops no verb."""
    try:
        return switches.read()
    except RedisError as error:
        log.warning(
            "the switches in Redis are unknown: %s", error, extra={"action": "switches_unknown"}
        )
        return None


def _next_state(
    connection: Connection,
    call: VerbCall,
    request: SwitchRequest,
    field: SwitchField,
    seen: SwitchesRead | None,
) -> tuple[SwitchState, SwitchState | None]:
    row = read_row(connection, field)
    in_redis = None if seen is None else seen.believed().get(field)
    former = newer(None if row is None else row.state, in_redis)
    now_us = clock_us(connection) if seen is None else seen.now_us
    by = turned_by(call.identity, call.reason or "", call.request_id)
    version = next_version(0 if former is None else former.version, now_us)
    return next_state(request, former, version, now_us, by), former


def newer(first: SwitchState | None, second: SwitchState | None) -> SwitchState | None:
    """Return the state with the greater version."""
    if first is None or second is None:
        return first or second
    return max(first, second, key=lambda state: state.version)


def detail_of(state: SwitchState) -> dict[str, object]:
    """Return a state's facts for an audit row."""
    return {
        "mode": state.mode.value,
        "version": state.version,
        "since": from_us(state.since_us).isoformat(),
        "until": from_us(state.until_us).isoformat() if state.until_us else None,
    }


def _was(former: SwitchState | None) -> dict[str, object] | None:
    if former is None:
        return None
    by = {"operator": former.operator, "reason": former.reason, "request_id": former.request_id}
    return {**detail_of(former), **by}


def carry_over(engine: Engine, switches: RedisSwitches, field: SwitchField) -> bool:
    """Put the state in Postgres into Redis, and give each request its outcome, once.

    Returns False if Redis does not answer; the relay repeats it. Raises SQLAlchemy's errors.
    """
    with engine.begin() as connection:
        row = read_row(connection, field)
        if row is None:
            return True
        try:
            switches.put(field, row.state)
        except RedisError as error:
            log.warning(
                "the switch %s is not in Redis yet: %s. The relay repeats it",
                field,
                error,
                extra={"action": "switch_waits", "switch": str(field)},
            )
            return False
        for request in row.unanswered:
            detail = {"in_redis": True, "version": row.state.version}
            audit.answer(connection, request, Outcome.APPLIED, detail)
        if row.unanswered:
            note_answered(connection, field, row.unanswered)
        return True


@contextmanager
def naming_break_glass() -> Iterator[None]:
    """Add to the error of a Postgres that does not answer how to act without it."""
    try:
        yield
    except ServerUnreachable as error:
        if error.role != "Postgres":
            raise
        raise ServerUnreachable(
            error.role, error.url, reasons(error.__cause__ or error), _WITHOUT_POSTGRES
        ) from error
