"""The injected clock: wall time for records, monotonic time for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "from_us", "to_us"]


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
    return int(moment.timestamp() * 1_000_000)


def from_us(us: int) -> datetime:
    """Aware UTC time of microseconds since the epoch."""
    return datetime.fromtimestamp(us / 1_000_000, UTC)
