"""The ways in which a task's body can end, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

__all__ = ["Again", "Ending", "Ignored", "Raised", "Rejected", "Replaced", "Returned", "delay_s_of"]


@dataclass(frozen=True, slots=True)
class Returned:
    """The body returned `value`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Again:
    """The body requested a retry, which Celery would have published at once."""

    retry: Retry


@dataclass(frozen=True, slots=True)
class Replaced:
    """The body replaced its task by another signature."""

    error: Ignore


@dataclass(frozen=True, slots=True)
class Ignored:
    """The body requested that its outcome is ignored."""

    error: Ignore | Retry


@dataclass(frozen=True, slots=True)
class Rejected:
    """The body rejected its message."""

    error: Reject


@dataclass(frozen=True, slots=True)
class Raised:
    """The body failed with an exception."""

    error: BaseException


Ending = Returned | Again | Replaced | Ignored | Rejected | Raised


def delay_s_of(when: datetime | str | float | None) -> float:
    """Return the seconds until a requested retry: from its countdown, or from its date."""
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    if isinstance(when, datetime):
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        return max((aware - datetime.now(UTC)).total_seconds(), 0.0)
    return max(float(when or 0), 0.0)
