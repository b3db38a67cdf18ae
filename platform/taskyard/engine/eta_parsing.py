"""Parse a message's ETA as Celery's own worker does, and compute when the message is due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from taskyard.broker import LONGEST_WAIT_S
from taskyard.clock import to_us, us_of

__all__ = ["due_ahead_us", "is_beyond_waiting", "is_date"]

# A message that is due within this time stays in the worker: the delay store gains nothing.
_AT_ONCE_US: Final = us_of(1)


def due_ahead_us(message: Any, now_us: int) -> int | None:
    """Return when a message is due, if that is more than a second after `now_us`; else None.

    The result is also None for an ETA that cannot be parsed; Celery reports the fault later.
    """
    due_us = _due_us((message.headers or {}).get("eta"))
    return None if due_us is None or due_us - now_us <= _AT_ONCE_US else due_us


def is_beyond_waiting(eta: Any) -> bool:
    """Return whether the date is later than a message can wait at a broker."""
    due_us = _due_us(eta)
    return due_us is not None and due_us - to_us(datetime.now(UTC)) > us_of(LONGEST_WAIT_S)


def is_date(eta: Any) -> bool:
    """Return whether the value is the text of a date that can be parsed."""
    return _due_us(eta) is not None


def _due_us(eta: Any) -> int | None:
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
        # Celery's worker treats a date without a zone as UTC, whatever the app's own zone is.
        return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
