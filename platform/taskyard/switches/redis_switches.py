"""The switches in Redis: one hash a namespace, its scripts, and the read of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import redis

from taskyard.clock import redis_time_us, us_of
from taskyard.errors import InvalidSwitch
from taskyard.store import Script, read_lua
from taskyard.switches.switch_field import SwitchField
from taskyard.switches.switch_state import Mode, SwitchState

__all__ = [
    "FARTHEST_AHEAD_US",
    "IN_FORCE_LUA",
    "UNREADABLE",
    "Form",
    "RedisSwitches",
    "SwitchesRead",
    "switches_key",
]

FARTHEST_AHEAD_US: Final = us_of(24 * 3600)
"""A version further ahead of the server's clock was written by no program of Taskyard."""
_PACKAGE: Final = "taskyard.switches"
UNREADABLE: Final = SwitchState(Mode.HOLD, version=0, since_us=0)
"""What a switch counts as whose value cannot be read."""
IN_FORCE_LUA: Final = read_lua(_PACKAGE, "in_force")
"""The Lua function `switch_in_force(value, now)`, for scripts of other packages."""


def switches_key(namespace: str) -> str:
    """Return the key of the hash with a namespace's switches, by field."""
    return f"{namespace}:switches"


@dataclass(frozen=True, slots=True)
class SwitchesRead:
    """All switches at one moment of the server's clock; `now_us` in microseconds.

    `unreadable` are the texts of fields that this version cannot read: their name or their value.
    """

    now_us: int
    states: Mapping[SwitchField, SwitchState]
    unreadable: tuple[str, ...] = ()

    def believed(self) -> dict[SwitchField, SwitchState]:
        """Return the states that a newer one follows.

        One that is on and whose value cannot be read, or whose version no clock can have given, is
        a hold with the version 0, so that it can be turned off.
        """
        latest_us = self.now_us + FARTHEST_AHEAD_US
        return {
            field: state if state.version <= latest_us else UNREADABLE
            for field, state in self._with_unreadable().items()
            if state.version <= latest_us or state.mode is not Mode.OFF
        }

    def in_force(self) -> dict[SwitchField, SwitchState]:
        """Return the switches that are on.

        One whose value cannot be read counts as a hold with the version 0, as in the scripts.
        """
        every = self._with_unreadable()
        return {field: state for field, state in every.items() if state.in_force(self.now_us)}

    def _with_unreadable(self) -> dict[SwitchField, SwitchState]:
        unreadable = {field: UNREADABLE for field in map(_known, self.unreadable) if field}
        return {**unreadable, **self.states}


@dataclass(frozen=True, slots=True)
class Form:
    """A signed form, taken once: its nonce, and how long that must be remembered."""

    nonce: str
    kept_ms: int


def _known(text: str) -> SwitchField | None:
    try:
        return SwitchField.parse(text)
    except InvalidSwitch:
        return None


class RedisSwitches:
    """The switches of a namespace in Redis; every method raises redis-py's errors.

    `prelude` is Lua that goes before each script.
    """

    def __init__(self, client: redis.Redis, namespace: str, *, prelude: str = "") -> None:
        self.key = switches_key(namespace)
        self.client = client
        self._put, self._read = (
            Script(prelude + read_lua(_PACKAGE, name)) for name in ("put", "read")
        )
        self._turn = Script(prelude + read_lua(_PACKAGE, "turn"))

    def put(self, field: SwitchField, state: SwitchState) -> bool:
        """Set a switch, unless the stored state has at least this version; return whether it did.

        Repeats change nothing, and any order of calls ends with the same state.
        """
        value = state.encode()
        answer = self._put(self.client, [self.key], [str(field), value, FARTHEST_AHEAD_US])
        return bool(answer)

    def turn(
        self,
        field: SwitchField,
        wanted: SwitchState,
        *,
        lasts_us: int,
        stream: str,
        event: Mapping[str, str],
        form: Form | None = None,
    ) -> tuple[str, SwitchState | None]:
        """Turn a switch without Postgres, and append the `event` to the lifecycle stream.

        Of `wanted` only the mode, and who and why are used: version and times are the server's, and
        `lasts_us` 0 means no end. Returns `turned`, `used` for a form that was taken before, or
        `off` for a switch that is off and cannot be turned off; and the state that it has by this.
        """
        keys = [self.key, stream]
        kept_ms = 0
        if form is not None:
            keys.append(f"{self.key}:form:{form.nonce}")
            kept_ms = form.kept_ms
        by = wanted.encode().partition("{")[2]
        fields = [part for pair in event.items() for part in pair]
        head = [str(field), wanted.mode.value, lasts_us, "{" + by, FARTHEST_AHEAD_US, kept_ms]
        came, value = self._turn(self.client, keys, [*head, *fields])
        text = came if isinstance(came, str) else came.decode()
        return text, SwitchState.parse(value) if value else None

    def read(self) -> SwitchesRead:
        """Return all switches and the server's time, in one round trip."""
        seconds, micros, flat = self._read(self.client, [self.key], [])
        now_us = redis_time_us((seconds, micros))
        states, unreadable = {}, []
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            text = name if isinstance(name, str) else name.decode("utf-8", "replace")
            try:
                states[SwitchField.parse(text)] = SwitchState.parse(value)
            except (ValueError, InvalidSwitch):
                unreadable.append(text)
        return SwitchesRead(now_us, states, tuple(unreadable))
