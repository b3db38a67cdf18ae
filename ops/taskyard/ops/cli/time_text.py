"""Times as text for people."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["age", "lasted", "moment"]

_STEPS = ((86400, "d"), (3600, "h"), (60, "m"))


def age(then: datetime | None, now: datetime) -> str:
    """Return how long ago: `12s`, `3m`, `2h`, `5d`; `?` if it is unknown."""
    if then is None:
        return "?"
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def lasted(start: datetime | None, end: datetime | None) -> str:
    """Return a duration: `0.42 s`, `3.1 s`; `?` if it is unknown."""
    if start is None or end is None:
        return "?"
    seconds = (end - start).total_seconds()
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def moment(then: datetime | None) -> str | None:
    """Return the time in UTC to the millisecond."""
    if then is None:
        return None
    return f"{then.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{then.microsecond // 1000:03d} UTC"
