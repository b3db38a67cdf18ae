"""The switches in Redis: one hash a namespace, its scripts, and the read of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import redis

from taskyard.clock import redis_time_us
from taskyard.errors import InvalidSwitch
from taskyard.store import Script, read_lua
from taskyard.switches.switch_field import SwitchField
from taskyard.switches.switch_state import SwitchState

__all__ = ["IN_FORCE_LUA", "RedisSwitches", "SwitchesRead", "switches_key"]

_PACKAGE: Final = "taskyard.switches"
IN_FORCE_LUA: Final = read_lua(_PACKAGE, "in_force")
"""The Lua function `switch_in_force(value, now)`, for scripts of other packages."""


def switches_key(namespace: str) -> str:
    """Return the key of the hash with a namespace's switches, by field."""
    return f"{namespace}:switches"


@dataclass(frozen=True, slots=True)
class SwitchesRead:
    """All switches at one moment of the server's clock; `now_us` in microseconds.

    `unreadable` are fields in which no program of Taskyard can have written: they have no effect.
    """

    now_us: int
    states: Mapping[SwitchField, SwitchState]
    unreadable: tuple[str, ...] = ()

    def in_force(self) -> dict[SwitchField, SwitchState]:
        """Return the switches that are on."""
        on = self.states.items()
        return {field: state for field, state in on if state.in_force(self.now_us)}


class RedisSwitches:
    """The switches of a namespace in Redis; every method raises redis-py's errors.

    `prelude` is Lua that goes before each script.
    """

    def __init__(self, client: redis.Redis, namespace: str, *, prelude: str = "") -> None:
        self.key = switches_key(namespace)
        self._client = client
        self._put = Script(prelude + read_lua(_PACKAGE, "put"))

    def put(self, field: SwitchField, state: SwitchState) -> bool:
        """Set a switch, unless the stored state has at least this version; return whether it did.

        Repeats change nothing, and any order of calls ends with the same state.
        """
        changed, _ = self._put(self._client, [self.key], [str(field), state.encode()])
        return bool(changed)

    def read(self) -> SwitchesRead:
        """Return all switches and the server's time, in one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self.key)
            now, fields = pipe.execute()
        states, unreadable = {}, []
        for name, value in fields.items():
            text = name if isinstance(name, str) else name.decode("utf-8", "replace")
            try:
                states[SwitchField.parse(text)] = SwitchState.parse(value)
            except (ValueError, InvalidSwitch):
                unreadable.append(text)
        return SwitchesRead(redis_time_us(now), states, tuple(unreadable))
