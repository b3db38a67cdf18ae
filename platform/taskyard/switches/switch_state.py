"""The state of a switch: on or off, since when and until when, by whom and why, and its version.

| from | event | to | version | since |
| --- | --- | --- | --- | --- |
| none, off, or on and over | turned on | on | greater | now |
| on | turned on again: mode, end or reason change | on | greater | as before |
| on | turned off, or its end has come | off | greater | now |
| off | turned off | off | as before | as before |
| any | a state with a version that is not greater | no change | as before | as before |

An `off` stays where an entry could be removed: an older `on` that comes late has a smaller version
and changes nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from taskyard.wire.control_characters import escaped

__all__ = ["Mode", "SwitchState", "next_version"]

# As the pattern of the scripts: both must agree whether a switch is on, whoever wrote the value.
_VALUE: Final = re.compile(r"(off|refuse|hold) ([0-9]+) ([0-9]+) ([0-9]+) (\{.*)", re.DOTALL)
_BY: Final = ("operator", "via", "reason", "request_id")
_LONGEST: Final = 2000
_LATEST_US: Final = 9_000_000_000_000_000
"""The year 2255: no time after it is shown, and doubles hold every microsecond before it."""


class Mode(StrEnum):
    """What a switch does.

    `REFUSE`: new work is refused. `HOLD`: also what waits is held. A pause only holds; its mode is
    `HOLD`.
    """

    OFF = "off"
    REFUSE = "refuse"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class SwitchState:
    """One state of one switch; times and the version are microseconds since 1970.

    `until_us` 0 means no end. `since_us` is when the switch was turned on, or off. Of two states of
    a field the one with the greater `version` holds.
    """

    mode: Mode
    version: int
    since_us: int
    until_us: int = 0
    operator: str = ""
    via: str = ""
    reason: str = ""
    request_id: str = ""

    def in_force(self, now_us: int) -> bool:
        """Return whether the switch is on at `now_us`, on the clock of Redis."""
        return self.mode is not Mode.OFF and not self.over(now_us)

    def over(self, now_us: int) -> bool:
        """Return whether the switch was turned on and its end has come."""
        return self.mode is not Mode.OFF and self.until_us != 0 and now_us >= self.until_us

    def encode(self) -> str:
        """Return the state as Redis holds it."""
        by = json.dumps({name: getattr(self, name) for name in _BY}, separators=(",", ":"))
        return f"{self.mode} {self.until_us} {self.since_us} {self.version} {by}"

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Return the state in a text that `encode` made; raises ValueError.

        Who and why are texts of anybody who can write to Redis: they are cut and escaped, and left
        out where they are not JSON, since the scripts obey the rest of the value all the same.
        """
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        found = _VALUE.match(text)
        if found is None:
            raise ValueError(f"expected the state of a switch, got {text[:100]!r}")
        mode, until_us, since_us, version, by = found.groups()
        return cls(
            Mode(mode),
            version=int(version),
            since_us=min(int(since_us), _LATEST_US),
            until_us=min(int(until_us), _LATEST_US),
            **_named(by),
        )

    def since(self, former: SwitchState | None, now_us: int) -> Self:
        """Return this state with the time since when it holds, after the `former` one.

        Since when one holds that could not be read, of the version 0, is not known: it begins now.
        So does one with a time to come, of another program or of a clock that was set back.
        """
        goes_on = (
            former is not None
            and former.version > 0
            and former.since_us <= now_us
            and (former.in_force(now_us) if self.mode is not Mode.OFF else former.mode is Mode.OFF)
        )
        return replace(self, since_us=former.since_us if former and goes_on else now_us)


def next_version(last: int, now_us: int, *, odd: bool = False) -> int:
    """Return a version after `last`, and after every one that a clock at `now_us` has given.

    Versions that are given in Postgres are even, those that are given in Redis while Postgres does
    not answer are odd: so no two states of a field have the same version.
    """
    least = max(last + 1, now_us)
    return least + (least % 2 != int(odd))


def _named(by: str) -> dict[str, str]:
    try:
        found: Any = json.loads(by)
    except (ValueError, RecursionError):
        found = {}
    return {name: escaped(str(found.get(name, ""))[:_LONGEST]) for name in _BY}
