"""One finding: a subject, its state, the cause and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from redis.exceptions import RedisError

from taskyard.errors import TaskyardError

__all__ = ["Finding", "Level", "judged"]


class Level(StrEnum):
    """The severity of a finding; only an `error` makes `taskyard check` fail."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """`detail` is what was seen, or the cause; `remedy` is empty if nothing must be done."""

    subject: str
    level: Level
    detail: str
    remedy: str = ""
    exit_code: int = 0

    @classmethod
    def ok(cls, subject: str, detail: str) -> Finding:
        """Build a finding of a subject that is as it should be."""
        return cls(subject, Level.OK, detail)

    @classmethod
    def warning(cls, subject: str, detail: str, remedy: str) -> Finding:
        """Build a finding of a subject that works, but may lose something or fail."""
        return cls(subject, Level.WARNING, detail, remedy)

    @classmethod
    def error(cls, subject: str, detail: str, remedy: str, exit_code: int = 2) -> Finding:
        """Build a finding of a subject that does not work."""
        return cls(subject, Level.ERROR, detail, remedy, exit_code)


def judged(subject: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Return the findings of `look`; an error that `look` raises becomes the last finding."""
    try:
        yield from look()
    except TaskyardError as error:
        yield Finding(subject, Level.ERROR, str(error), exit_code=error.exit_code)
    except RedisError as error:
        yield Finding.error(subject, str(error), "See the server's log.", exit_code=3)
