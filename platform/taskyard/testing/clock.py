"""A clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol
from weakref import WeakSet

from taskyard.clock import to_us

__all__ = ["Alarm", "Follower", "YardClock"]

Alarm = tuple[datetime, Callable[[], None]]


class Follower(Protocol):
    """What keeps a copy of the time."""

    def clock_moved(self) -> None:
        """Take the clock's time."""
        ...


class YardClock:
    """Wall and monotonic time of a `Yard`; it starts at `start`, by default at the moment.

    A handler may move it too, to say how long its work takes: while an attempt runs, moving the
    clock renews the attempt's lease and meets its time limits on the way.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = datetime.now(UTC) if start is None else start
        self._now = self._start
        self._alarms: list[Alarm] = []
        # One clock may serve many yards, one after the other.
        self._followers: WeakSet[Follower] = WeakSet()

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
            self._move_to(max(self._now, moment))
            ring()
        self._move_to(end)

    def follow(self, follower: Follower) -> None:
        """Call `follower.clock_moved()` whenever the time has changed, while it exists."""
        self._followers.add(follower)

    def _move_to(self, moment: datetime) -> None:
        self._now = moment
        for follower in list(self._followers):
            follower.clock_moved()

    @contextmanager
    def alarms(self, alarms: list[Alarm]) -> Iterator[None]:
        """Ring at these moments, should the clock pass them inside the block; others wait."""
        before, self._alarms = self._alarms, sorted(alarms, key=lambda alarm: alarm[0])
        try:
            yield
        finally:
            self._alarms = before
