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
    """A clock: wall time, monotonic time and waiting."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that is never set back or forward."""
        ...

    def wait_s(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds on the monotonic clock."""
        return time.monotonic()

    def wait_s(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


SYSTEM_CLOCK: Clock = SystemClock()


def to_us(moment: datetime) -> int:
    """Return microseconds since 1970, the unit of every time stored in Redis."""
    return int(moment.timestamp() * US)


def from_us(us: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(us / US, UTC)


def us_of(seconds: float) -> int:
    """Return whole microseconds of a duration in seconds."""
    return int(seconds * US)


def seconds_of(us: int) -> float:
    """Return the seconds of a duration in microseconds."""
    return us / US


def redis_time_us(reply: tuple[int | bytes | str, int | bytes | str]) -> int:
    """Return microseconds since 1970 from the answer of Redis' TIME: seconds, and microseconds."""
    seconds, micros = reply
    return int(seconds) * US + int(micros)
