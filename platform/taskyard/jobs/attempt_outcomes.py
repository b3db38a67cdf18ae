"""How an attempt can end, as values that are matched exhaustively."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from taskyard.jobs.error_codes import EXCEPTION
from taskyard.jobs.retry_policy import Category

__all__ = [
    "Completed",
    "Decision",
    "Failed",
    "Failure",
    "Outcome",
    "Retrying",
    "cause_summary",
]


class Decision(StrEnum):
    """The decision stored in the record; it says what the worker must publish."""

    COMPLETED = "completed"
    RETRYING = "retrying"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of one attempt; the code that creates it limits the length of its texts."""

    code: str
    error_class: str
    message: str
    traceback: str
    fingerprint: str
    retry_after_s: float | None = None
    details: dict[str, object] | None = None

    @property
    def summary(self) -> str:
        """Return the message, after the exception's class if the code does not name the class."""
        return _summary(self.code, self.error_class, self.message)


def cause_summary(cause: Mapping[str, Any]) -> str:
    """Return `Failure.summary` of a stored cause of death, empty for an empty cause."""
    names = ("code", "error_class", "message")
    return _summary(*(str(cause.get(name) or "") for name in names))


def _summary(code: str, error_class: str, message: str) -> str:
    return f"{error_class}: {message}" if code == EXCEPTION and error_class else message


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; its `value` can be written as JSON."""

    value: object


@dataclass(frozen=True, slots=True)
class Retrying:
    """The policy allows another attempt after `delay`."""

    failure: Failure
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """The policy allows no further attempt: the job becomes a dead letter.

    `escalate_to` names a review queue, if any.
    """

    failure: Failure
    category: Category
    escalate_to: str | None = None


Outcome = Completed | Retrying | Failed
