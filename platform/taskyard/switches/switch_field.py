"""The field of a switch: pause or kill switch, and on what. There is one switch for each field."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from taskyard.errors import InvalidSwitch
from taskyard.wire.control_characters import escaped

__all__ = ["LONGEST_NAME", "OPS", "Kind", "SwitchField", "SwitchScope", "fields_of"]

LONGEST_NAME: Final = 255
"""Characters; the longest name that RabbitMQ gives a queue, in bytes."""
OPS: Final = "ops"
"""The queue of the operators' own jobs, which `kill all` neither refuses nor holds."""


class Kind(StrEnum):
    """The kind of a switch.

    `PAUSE`: workers take no jobs from the queue, and clients may enqueue. `KILL`: new work is
    refused; in mode `hold` also what waits is held.
    """

    PAUSE = "pause"
    KILL = "kill"


class SwitchScope(StrEnum):
    """What a switch affects: everything, or what has a name."""

    ALL = "all"
    QUEUE = "queue"
    TYPE = "type"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True, order=True)
class SwitchField:
    """Which switch: its text is the field in Redis and the key in Postgres.

    `pause queue:NAME`, `kill all`, `kill queue:NAME`, `kill type:NAME` or `kill domain:NAME`. A
    queue's name is the one that records have: in settings, not at the broker. Raises
    `InvalidSwitch` for a field that cannot be.
    """

    kind: Kind
    scope: SwitchScope
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse a field that no job could meet."""
        if self.kind is Kind.PAUSE and self.scope is not SwitchScope.QUEUE:
            raise InvalidSwitch(
                f"only a queue can be paused, got {self.scope.value!r}. To stop job types, domains "
                "or everything, use the kill switch: taskyard kill on"
            )
        if (self.scope is SwitchScope.ALL) != (self.name == ""):
            raise InvalidSwitch(
                f"expected all, queue:NAME, type:NAME or domain:NAME, got {self.on!r}"
            )
        if self.name and not _possible(self.name):
            raise InvalidSwitch(
                f"the name of a {self.scope.value} has 1 to {LONGEST_NAME} characters and no "
                f"control characters, got {len(self.name)} characters: "
                f"{escaped(self.name[:60])!r}"
            )

    @classmethod
    def pause(cls, queue: str) -> Self:
        """Return the pause of a queue."""
        return cls(Kind.PAUSE, SwitchScope.QUEUE, queue)

    @classmethod
    def kill(cls, on: str) -> Self:
        """Return the kill switch on `all`, `queue:NAME`, `type:NAME` or `domain:NAME`."""
        scope, colon, name = on.partition(":")
        known = scope in set(SwitchScope)
        if not known or bool(colon) == (scope == SwitchScope.ALL):
            raise InvalidSwitch(
                f"expected all, queue:NAME, type:NAME or domain:NAME, got {escaped(on[:60])!r}"
            )
        return cls(Kind.KILL, SwitchScope(scope), name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the field of a text that `str` made; raises `InvalidSwitch`."""
        kind, space, on = text.partition(" ")
        if not space or kind not in set(Kind):
            raise InvalidSwitch(
                "expected a switch such as 'pause queue:NAME' or 'kill all', got "
                f"{escaped(text[:60])!r}"
            )
        named = cls.kill(on)
        return cls(Kind(kind), named.scope, named.name)

    @property
    def on(self) -> str:
        """What the switch is on: `all`, `queue:NAME`, `type:NAME` or `domain:NAME`."""
        return f"{self.scope}:{self.name}" if self.name else self.scope.value

    def __str__(self) -> str:
        """Return the field's text."""
        return f"{self.kind} {self.on}"


def fields_of(queue: str, job_type: str, domain: str | None) -> tuple[SwitchField, ...]:
    """Return each field that a job meets, those first that stop its whole queue.

    `kill all` is not among those of the queue `ops`, so that operators' own jobs still run.
    Names that no switch can have are left out.
    """
    named = (
        (Kind.PAUSE, SwitchScope.QUEUE, queue),
        (Kind.KILL, SwitchScope.QUEUE, queue),
        (Kind.KILL, SwitchScope.TYPE, job_type),
        (Kind.KILL, SwitchScope.DOMAIN, domain or ""),
    )
    everything = () if queue == OPS else (SwitchField(Kind.KILL, SwitchScope.ALL),)
    return (
        *everything,
        *(SwitchField(kind, scope, name) for kind, scope, name in named if _possible(name)),
    )


def _possible(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and escaped(name) == name and not set(name) & {"\t", "\n"}
