"""A clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from taskyard.clock import to_us

__all__ = ["Alarm", "YardClock"]

Alarm = tuple[datetime, Callable[[], None]]


class YardClock:
    """Wall and monotonic time of a `Yard`; it starts at `start`, by default at the moment.

    A handler may move it too, to say how long its work takes: while an attempt runs, moving the
    clock renews the attempt's lease and meets its time limits on the way.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = datetime.now(UTC) if start is None else start
        self._now = self._start
        self._alarms: list[Alarm] = []

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return self._now

    def now_us(self) -> int:
        """Wall time in microseconds, as records and letters keep it."""
        return to_us(self._now)

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        return (self._now - self._start).total_seconds()

    def wait_s(self, seconds: float) -> None:
        """Let `seconds` pass, at once."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        """Move the clock; no job runs, what became due waits for `yard.run()`."""
        if by < timedelta(0):
            raise ValueError(f"a clock moves forward, got {by!r}; make a Yard with an earlier one")
        end = self._now + by
        while self._alarms and self._alarms[0][0] <= end:
            moment, ring = self._alarms.pop(0)
            self._now = max(self._now, moment)
            ring()
        self._now = end

    @contextmanager
    def alarms(self, alarms: list[Alarm]) -> Iterator[None]:
        """Ring at these moments, should the clock pass them inside the block; others wait."""
        before, self._alarms = self._alarms, sorted(alarms, key=lambda alarm: alarm[0])
        try:
            yield
        finally:
            self._alarms = before
