"""The modes of a task, which say how much Taskyard does for it: nothing, observe or protect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Self

from taskyard.errors import InvalidSettings

__all__ = ["Mode", "Modes"]


class Mode(StrEnum):
    """The mode of a task.

    `observe` writes events and dead letters and changes nothing; `protect` also decides
    outcomes.
    """

    OFF = "off"
    OBSERVE = "observe"
    PROTECT = "protect"

    @classmethod
    def read(cls, value: object, where: str) -> Self:
        """Return the mode called `value`; raises `InvalidSettings`.

        The error names `where` the mode was set.
        """
        try:
            return cls(str(value))
        except ValueError:
            names = ", ".join(repr(str(mode)) for mode in cls)
            raise InvalidSettings(f"{where}: expected one of {names}, got {value!r}") from None


@dataclass(frozen=True, slots=True)
class Modes:
    """The mode of every task name: that of the longest pattern that matches, else the default."""

    default: Mode
    patterns: Mapping[str, Mode] = field(default_factory=dict)

    @classmethod
    def read(cls, default: object, tasks: Mapping[str, object] | None) -> Self:
        """Read the modes from the arguments of `install`; raises `InvalidSettings`."""
        patterns = {
            pattern: Mode.read(mode, f"install(tasks={{{pattern!r}: …}})")
            for pattern, mode in (tasks or {}).items()
        }
        return cls(Mode.read(default, "install(mode=…)"), patterns)

    @property
    def protect(self) -> bool:
        """Return whether `mode` or `tasks` protect some task.

        Tasks with an attribute of their own are not considered.
        """
        return Mode.PROTECT in (self.default, *self.patterns.values())

    def of(self, name: str, own: object = None) -> Mode:
        """Return the mode of the task `name`; its attribute `taskyard`, in `own`, wins."""
        if own is not None:
            return Mode.read(own, f"task {name!r}, attribute 'taskyard'")
        matching = [pattern for pattern in self.patterns if fnmatchcase(name, pattern)]
        if matching:
            return self.patterns[max(matching, key=len)]
        return self.default
