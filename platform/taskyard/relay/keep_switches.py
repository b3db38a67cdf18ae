"""Keep the switches in Redis as Postgres has them, and end those whose end has come.

| found | done |
| --- | --- |
| Redis lacks a row's state, or has an older one | it is put there |
| a request has no outcome | its audit row gets one |
| a switch that is on is over | it is turned off, with an audit row |
| Redis has a newer state | the mirror brings it; after 30 s it is taken as it is |

This does not wait for the gate: a flush closes that, and must not lift a kill switch.
"""

from __future__ import annotations

import threading
import uuid
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from taskyard import audit
from taskyard.access.broadcast_calls import UNVERIFIED
from taskyard.audit import Outcome
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.switch_request import action_of
from taskyard.control.turn_switch import carry_over, detail_of
from taskyard.database.outage_retry import repeat
from taskyard.switches import (
    Mode,
    RedisSwitches,
    SwitchesRead,
    SwitchField,
    SwitchState,
    next_version,
)
from taskyard.switches.postgres_switches import SwitchRow, read_row, read_rows, store
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "IMPORTED_AFTER_S", "SwitchKeeper"]

log = logger(__name__)

EVERY_S: Final = 2.0
"""A Redis that has lost its switches has them again after this time, and at most 5 s."""
IMPORTED_AFTER_S: Final = 30.0
"""So long the mirror may take to bring a state that came to Redis while Postgres was down."""
_RELAY: Final = "local:relay"
_VIA: Final = "relay"
_NAMESPACE: Final = uuid.UUID("3c8f4e0a-51a9-5a1e-9d0e-7e8f2b6a4c11")


class SwitchKeeper:
    """Compares the switches of both stores; any number of relays may do so at once."""

    def __init__(
        self, engine: Engine, switches: RedisSwitches, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._engine, self._switches, self._clock = engine, switches, clock
        # Field -> the version that only Redis has, and when it was first seen.
        self._ahead: dict[SwitchField, tuple[int, float]] = {}
        self._unreadable: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Compare every `EVERY_S` until `stop` is set; while a server does not answer, wait."""

        def step() -> None:
            self.run_once()
            stop.wait(EVERY_S)

        repeat("switches", step, stop, also=(RedisError,), longest_s=EVERY_S)

    def run_once(self) -> None:
        """Compare once; raises the errors of a server that does not answer."""
        with self._engine.connect() as connection:
            rows = read_rows(connection)
        read = self._switches.read()
        self._report_unreadable(read)
        found = read.believed()
        for field, row in rows.items():
            self._keep(field, row, found.get(field), read.now_us)
        newer = {
            field: state
            for field, state in found.items()
            # One that cannot be read waits for an operator who turns it.
            if state.version > (rows[field].state.version if field in rows else 0)
        }
        self._import(newer)

    def _keep(
        self, field: SwitchField, row: SwitchRow, found: SwitchState | None, now_us: int
    ) -> None:
        ahead = found is not None and found.version > row.state.version
        over = row.state.over(now_us) and not ahead
        if over:
            self._end(field, now_us)
        lacks = found is None or found.version < row.state.version
        if not (over or lacks or row.unanswered):
            return
        if carry_over(self._engine, self._switches, field) and lacks and not over:
            log.warning(
                "Redis did not have the switch %s as it is in Postgres, and has it again",
                field,
                extra={"action": "switch_restored", "switch": str(field)},
            )

    def _end(self, field: SwitchField, now_us: int) -> None:
        """Turn off a switch whose end has come, once; another relay may have done it."""
        with self._engine.begin() as connection:
            row = read_row(connection, field)
            if row is None or not row.state.over(now_us):
                return
            former = row.state
            request = uuid.uuid4()
            state = SwitchState(
                Mode.OFF,
                version=next_version(former.version, now_us),
                since_us=former.until_us,
                operator=_RELAY,
                via=_VIA,
                reason="its end has come",
                request_id=str(request),
            )
            store(connection, field, state)
            self._audit(connection, request, field, state, _RELAY, {"ended": former.request_id})
        log.info(
            "the switch %s is off: its end has come",
            field,
            extra={"action": "switch_ended", "switch": str(field)},
        )

    def _import(self, newer: dict[SwitchField, SwitchState]) -> None:
        now_s = self._clock.monotonic_s()
        known = {field: seen for field, seen in self._ahead.items() if field in newer}
        for field, state in newer.items():
            version, since_s = known.get(field, (state.version, now_s))
            known[field] = (state.version, since_s if version == state.version else now_s)
            if now_s - known[field][1] >= IMPORTED_AFTER_S:
                self._store_unverified(field, state)
        self._ahead = known

    def _store_unverified(self, field: SwitchField, state: SwitchState) -> None:
        """Store a state that no verified event brought: its row says who it claims to be of."""
        # Each relay derives the same id, so the row is written once.
        request = uuid.uuid5(_NAMESPACE, f"{field} {state.encode()}")
        claimed = {"operator": state.operator, "via": state.via, "request_id": state.request_id}
        with self._engine.begin() as connection:
            read_row(connection, field)
            if store(connection, field, state):
                self._audit(connection, request, field, state, UNVERIFIED, {"claims": claimed})
        log.warning(
            "the switch %s is only in Redis, and no entry of the lifecycle stream says who turned "
            "it. Postgres has it now: see taskyard switches list",
            field,
            extra={"action": "switch_imported", "switch": str(field)},
        )

    def _audit(
        self,
        connection: Connection,
        request: uuid.UUID,
        field: SwitchField,
        state: SwitchState,
        identity: str,
        detail: dict[str, object],
    ) -> None:
        entry = audit.Entry(
            request_id=request,
            action_type=action_of(field.kind, state.mode),
            operator_identity=identity,
            identity_via=_VIA,
            reason=state.reason,
            outcome=Outcome.APPLIED,
            target_request_id=str(field),
            detail={"switch": detail_of(state), **detail},
        )
        audit.write(connection, entry)

    def _report_unreadable(self, read: SwitchesRead) -> None:
        for name in sorted(set(read.unreadable) - self._unreadable):
            log.error(
                "the value of the switch %.100r in %s cannot be read; workers and clients treat it "
                "as a hold. Turn it off or on again, or delete the entry with HDEL",
                name,
                self._switches.key,
                extra={"action": "switch_unreadable", "key": self._switches.key},
            )
        self._unreadable = set(read.unreadable)
