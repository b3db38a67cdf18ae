"""Turning switches in Redis alone, as workers read them: no operator, and no Postgres."""

from __future__ import annotations

from typing import Any

from taskyard.clock import redis_time_us
from taskyard.switches import Mode, RedisSwitches, SwitchField, SwitchState, next_version

__all__ = ["HeldSwitches"]


class HeldSwitches:
    """The switches of one namespace; `field` is a switch's text, such as `pause queue:exec`."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client, self._switches = client, RedisSwitches(client, namespace)

    def hold(self, field: str, *, for_s: float = 0) -> None:
        """Turn a switch on, in mode `hold`."""
        self.turn(field, Mode.HOLD, for_s=for_s)

    def refuse(self, field: str, *, since_us: int | None = None) -> None:
        """Turn a switch on, in mode `refuse`."""
        self.turn(field, Mode.REFUSE, since_us=since_us)

    def off(self, field: str) -> None:
        """Turn a switch off."""
        self.turn(field, Mode.OFF)

    def turn(
        self, field: str, mode: Mode, *, for_s: float = 0, since_us: int | None = None
    ) -> None:
        """Give a switch its next state."""
        now_us = redis_time_us(self._client.time())
        of = SwitchField.parse(field)
        known = self._switches.read().states.get(of)
        state = SwitchState(
            mode,
            version=next_version(known.version if known else 0, now_us),
            since_us=now_us if since_us is None else since_us,
            until_us=now_us + int(for_s * 1_000_000) if for_s else 0,
        )
        assert self._switches.put(of, state)
