"""Bring switches that were turned without Postgres: the row, and the audit rows of the request.

A form proves who turned the switch. Without one the event proves nothing, so it only becomes audit
rows that say so; the relay takes the state from Redis, which workers and clients obey anyway.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from sqlalchemy import Connection, func, select

from taskyard import audit
from taskyard.access import Action
from taskyard.access.broadcast_calls import UNVERIFIED
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import Verifier
from taskyard.audit import Outcome
from taskyard.clock import from_us, us_of
from taskyard.control.break_glass import LONGEST_FORM, call_of_form
from taskyard.control.carry_out_signed_message import request_id_of
from taskyard.control.switch_request import LONGEST_SWITCH, SwitchRequest, permit
from taskyard.control.turn_switch import detail_of
from taskyard.database.tables import AUDIT
from taskyard.errors import CredentialRefused, InvalidSwitch, NotPermitted, TaskyardError
from taskyard.mirror.entry_faults import fault_of_entry
from taskyard.switches import SwitchField, SwitchState
from taskyard.switches.postgres_switches import read_row, store
from taskyard.switches.redis_switches import FARTHEST_AHEAD_US

__all__ = ["MOST_UNVERIFIED_A_MINUTE", "SWITCH_FIELD", "SwitchEvent", "store_switch"]

SWITCH_FIELD: Final = b"switch"
"""Entries of the stream with this field are switches that were turned without Postgres."""
MOST_UNVERIFIED_A_MINUTE: Final = 100
"""So many rows of switches without a form are written; the others are counted."""
_TOO_MANY: Final = "too_many_switches"
_NOT_PERMITTED: Final = "not_permitted"
_VIA: Final = "break_glass"
_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class SwitchEvent:
    """A switch that was turned without Postgres, as its entry in the stream says."""

    verb: Action
    switch: SwitchField
    state: SwitchState
    at_us: int
    lasts_s: int | None
    credential: str = field(default="", repr=False)

    @property
    def at(self) -> datetime:
        """When it was turned, by the clock of Redis."""
        return from_us(self.at_us)

    @property
    def request(self) -> SwitchRequest:
        """What the operator wanted."""
        lasts = None if self.lasts_s is None else timedelta(seconds=self.lasts_s)
        return SwitchRequest(self.switch.kind, self.switch.on, self.state.mode, lasts=lasts)

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read an entry; raises KeyError and ValueError."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        try:
            switch = SwitchField.parse(texts["switch"])
        except InvalidSwitch as error:
            raise ValueError(str(error)) from error
        lasts = None if texts["lasts_s"] == "null" else int(texts["lasts_s"][:_DIGITS])
        if lasts is not None and not 0 < lasts <= LONGEST_SWITCH.total_seconds():
            raise ValueError(f"expected seconds or null in the field 'lasts_s', got {lasts}")
        event = cls(
            verb=Action(texts["verb"]),
            switch=switch,
            state=SwitchState.parse(texts["state"]),
            at_us=int(texts["at"][:_DIGITS]),
            lasts_s=lasts,
            credential=texts.get("credential", ""),
        )
        event.check()
        return event

    def check(self) -> None:
        """Raise ValueError for an event that turn.lua cannot have written."""
        state, at_us = self.state, self.at_us
        ends_us = at_us + us_of(self.lasts_s) if self.lasts_s is not None else state.until_us
        if self.verb is not self.request.action:
            raise ValueError(f"the verb {self.verb} does not turn {self.switch} {state.mode}")
        if not at_us <= state.version <= at_us + FARTHEST_AHEAD_US or state.version % 2 == 0:
            raise ValueError(
                f"expected a version that a clock at {at_us} us can give, got {state.version}"
            )
        if state.since_us > at_us or state.until_us != ends_us:
            raise ValueError(f"the state {state.encode()[:100]!r} is not that of the request")
        try:
            _ = self.at
            uuid.UUID(state.request_id)
        except (OverflowError, OSError) as error:
            raise ValueError(f"the field 'at' is not a time in microseconds: {error}") from error


def store_switch(
    connection: Connection, event: SwitchEvent, verifier: Verifier, appended: datetime
) -> str | None:
    """Write the rows of a switch, once; return why it is counted instead, if it is."""
    if not event.credential:
        return _store_unverified(connection, event)
    try:
        call = call_of_form(verifier.audience, event.request, event.state.reason)
        verified = verifier.authenticate(event.credential, call, LONGEST_FORM)
        now = verifier.clock.now()
        fault = fault_of_entry(event.at, verified, appended, now, known=True)
        permit(verified.identity, event.verb, event.switch)
    except CredentialRefused as error:
        return error.code
    except NotPermitted:
        return _NOT_PERMITTED
    except TaskyardError:
        return Fault.MALFORMED.value
    who, state = verified.identity, event.state
    request_id = request_id_of(verified.nonce)
    if fault is None and (state.operator, state.via, state.request_id) != (
        who.subject,
        who.via,
        str(request_id),
    ):
        fault = Fault.MALFORMED.value
    if fault is not None:
        return fault
    read_row(connection, event.switch)
    if not audit.rows_of(connection, request_id):
        detail = {"nonce": verified.nonce}
        _write(connection, event, request_id, (who.subject, who.via), detail)
        store(connection, event.switch, state)
    return None


def _store_unverified(connection: Connection, event: SwitchEvent) -> str | None:
    read_row(connection, event.switch)
    # Another's request id must not be taken by an entry that anyone can append.
    request_id = uuid.uuid5(uuid.UUID(event.state.request_id), "unverified")
    if audit.rows_of(connection, request_id):
        return None
    if _unverified_of_a_minute(connection) >= 2 * MOST_UNVERIFIED_A_MINUTE:
        return _TOO_MANY
    claims = {"operator": event.state.operator, "via": event.state.via}
    by = (UNVERIFIED, _VIA)
    detail = {"claims": {**claims, "request_id": event.state.request_id}}
    _write(connection, event, request_id, by, detail)
    return None


def _write(
    connection: Connection,
    event: SwitchEvent,
    request_id: uuid.UUID,
    by: tuple[str, str],
    detail: Mapping[str, object],
) -> None:
    for outcome in (Outcome.REQUESTED, Outcome.APPLIED):
        entry = audit.Entry(
            request_id=request_id,
            action_type=event.verb,
            operator_identity=by[0],
            identity_via=by[1],
            reason=event.state.reason,
            outcome=outcome,
            target_request_id=str(event.switch),
            detail={
                "switch": detail_of(event.state),
                "at": event.at.isoformat(),
                "break_glass": True,
                **detail,
            },
        )
        audit.write(connection, entry)


def _unverified_of_a_minute(connection: Connection) -> int:
    query = (
        select(func.count())
        .select_from(AUDIT)
        .where(
            AUDIT.c.performed_at >= func.now() - timedelta(minutes=1),
            AUDIT.c.operator_identity == UNVERIFIED,
        )
    )
    return connection.scalar(query) or 0
