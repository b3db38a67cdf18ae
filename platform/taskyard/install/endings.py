"""How a task's body can end, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

__all__ = ["Again", "Ending", "Ignored", "Raised", "Rejected", "Replaced", "Returned"]


@dataclass(frozen=True, slots=True)
class Returned:
    """It returned `value`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Again:
    """It asked for a retry, which Celery would have published at once."""

    retry: Retry


@dataclass(frozen=True, slots=True)
class Replaced:
    """It put another signature in its own place."""

    error: Ignore


@dataclass(frozen=True, slots=True)
class Ignored:
    """It asked for its outcome to be ignored."""

    error: Ignore | Retry


@dataclass(frozen=True, slots=True)
class Rejected:
    """It rejected its message."""

    error: Reject


@dataclass(frozen=True, slots=True)
class Raised:
    """It failed."""

    error: BaseException


Ending = Returned | Again | Replaced | Ignored | Rejected | Raised
