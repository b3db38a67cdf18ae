"""Times, people and errors as parts of sentences, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from taskyard.clock import US, from_us
from taskyard.jobs.attempt_outcomes import cause_summary
from taskyard.wire.redaction import redact_text

__all__ = ["ago", "by", "cause_text", "count_of", "moment_us", "when"]

_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_MINUTE: Final = 60
_LONGEST: Final = 200


def moment_us(us: int) -> str:
    """Return a time in UTC to the second; `at an unknown time` for 0."""
    return f"{from_us(us):%Y-%m-%d %H:%M:%S} UTC" if us else "at an unknown time"


def when(us: int, now_us: int) -> str:
    """Return a time and its distance from now: `2025-06-01 03:00:05 UTC (in 5s)`."""
    if us > now_us:
        return f"{moment_us(us)} (in {_duration(us - now_us)})"
    return ago(us, now_us)


def ago(us: int, now_us: int) -> str:
    """Return a past time and how long ago it was."""
    return f"{moment_us(us)} ({_duration(now_us - us)} ago)" if us else moment_us(us)


def _duration(us: int) -> str:
    """Return it rounded down in its two largest units, or in one that is enough: `1h 59m`, `7m`."""
    seconds = max(us, 0) // US
    for (size, unit), (smaller, part) in pairwise(_STEPS):
        if seconds >= size:
            rest = seconds % size // smaller if size > _MINUTE else 0
            return f"{seconds // size}{unit}" + (f" {rest}{part}" if rest else "")
    return f"{seconds}s"


def by(who: tuple[str, str] | None) -> str:
    """Return ` by OPERATOR: reason`; empty if it is unknown who it was."""
    if who is None:
        return ""
    operator, reason = who
    return f" by {operator} ({redact_text(reason)})" if reason else f" by {operator}"


def cause_text(cause: Mapping[str, Any]) -> str:
    """Return code and message of a failure, on one line of limited length."""
    said = " ".join(redact_text(cause_summary(cause)).split())
    text = f"{cause.get('code') or 'an unknown code'}: {said}".removesuffix(": ")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def count_of(number: int, noun: str) -> str:
    """Return `1 worker`, `2 workers`."""
    return f"{number} {noun}{'s' * (number != 1)}"
