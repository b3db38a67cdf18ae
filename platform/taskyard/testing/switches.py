"""The pauses and kill switches of a yard in memory, turned by the test.

Alone because it is the only file here that stands for `Control` and the command line.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from taskyard.clock import us_of
from taskyard.errors import Refused
from taskyard.switches import Mode, RedisSwitches, SwitchField, SwitchState, next_version
from taskyard.testing.records import MemoryRecords

__all__ = ["YardSwitches"]

_TEST: Final = "test"


class YardSwitches:
    """Turns switches as `Control` does, without rights, reasons and audit.

    `lasts` is how long a switch stays on, by the yard's clock; None for no end. Raises
    `InvalidSwitch` for a field that cannot be, and `Refused` for a switch that is off already.
    """

    def __init__(self, records: MemoryRecords) -> None:
        self.stored = RedisSwitches(
            records.client, records.settings.namespace, prelude=records.storage.prelude
        )

    def pause_queue(self, queue: str, *, lasts: timedelta | None = None) -> SwitchState:
        """Pause a queue: its jobs wait, and `enqueue` still accepts."""
        return self._turn(SwitchField.pause(queue), Mode.HOLD, lasts)

    def resume_queue(self, queue: str) -> SwitchState:
        """End the pause of a queue."""
        return self._turn(SwitchField.pause(queue), Mode.OFF)

    def kill(
        self, on: str, *, hold: bool = False, lasts: timedelta | None = None, reason: str = _TEST
    ) -> SwitchState:
        """Turn the kill switch on for `all`, `queue:NAME`, `type:NAME` or `domain:NAME`.

        New work is refused with `reason`; with `hold` also what waits is held.
        """
        mode = Mode.HOLD if hold else Mode.REFUSE
        return self._turn(SwitchField.kill(on), mode, lasts, reason)

    def lift(self, on: str) -> SwitchState:
        """Turn the kill switch off."""
        return self._turn(SwitchField.kill(on), Mode.OFF)

    def _turn(
        self,
        field: SwitchField,
        mode: Mode,
        lasts: timedelta | None = None,
        reason: str = _TEST,
    ) -> SwitchState:
        read = self.stored.read()
        former = read.states.get(field)
        if mode is Mode.OFF and (former is None or former.mode is Mode.OFF):
            raise Refused(f"{field} is off, so it cannot be turned off")
        last = 0 if former is None else former.version
        state = SwitchState(
            mode,
            version=next_version(last, read.now_us),
            since_us=0,
            until_us=0 if lasts is None else read.now_us + us_of(lasts.total_seconds()),
            operator=_TEST,
            via=_TEST,
            reason=reason,
            request_id=str(uuid.uuid4()),
        ).since(former, read.now_us)
        self.stored.put(field, state)
        return state
