"""The injected clock: wall time for records, monotonic time for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

__all__ = [
    "SYSTEM_CLOCK",
    "US",
    "Clock",
    "SystemClock",
    "from_us",
    "redis_time_us",
    "seconds_of",
    "to_us",
    "us_of",
]

# Microseconds in a second.
US: Final = 1_000_000


class Clock(Protocol):
    """What the code may ask of time."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps."""
        ...

    def wait_s(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def wait_s(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


SYSTEM_CLOCK: Clock = SystemClock()


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch, the unit of every time stored in Redis."""
    return int(moment.timestamp() * US)


def from_us(us: int) -> datetime:
    """Aware UTC time of microseconds since the epoch."""
    return datetime.fromtimestamp(us / US, UTC)


def us_of(seconds: float) -> int:
    """Whole microseconds of a duration in seconds."""
    return int(seconds * US)


def seconds_of(us: int) -> float:
    """Seconds of a duration in microseconds."""
    return us / US


def redis_time_us(reply: tuple[int | bytes | str, int | bytes | str]) -> int:
    """Microseconds since the epoch, of what Redis' TIME answers: seconds, and microseconds."""
    seconds, micros = reply
    return int(seconds) * US + int(micros)
