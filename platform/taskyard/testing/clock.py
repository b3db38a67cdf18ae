"""A clock that moves only when a test moves it."""

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
    """An object that keeps a copy of the clock's time."""

    def clock_moved(self) -> None:
        """Copy the clock's new time."""
        ...


class YardClock:
    """The wall clock and the monotonic clock of a `Yard`.

    It starts at `start`, by default at the present. A handler may move it too, to simulate how
    long its work takes: while an attempt runs, moving the clock renews the attempt's lease and
    applies its time limits.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = datetime.now(UTC) if start is None else start
        self._now = self._start
        self._alarms: list[Alarm] = []
        # One clock may serve many yards, one after the other.
        self._followers: WeakSet[Follower] = WeakSet()

    def now(self) -> datetime:
        """Return the wall time as an aware datetime in UTC."""
        return self._now

    def now_us(self) -> int:
        """Return the wall time in microseconds, as records and dead letters store it."""
        return to_us(self._now)

    def monotonic_s(self) -> float:
        """Return the seconds since the clock was created."""
        return (self._now - self._start).total_seconds()

    def wait_s(self, seconds: float) -> None:
        """Move the clock by `seconds`, without a real wait."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        """Move the clock forward; no job runs, and due jobs wait for `yard.run()`."""
        if by < timedelta(0):
            raise ValueError(
                f"expected a duration of 0 or more, got {by!r}. A clock never goes back; for "
                "an earlier time create a Yard with an earlier clock"
            )
        end = self._now + by
        while self._alarms and self._alarms[0][0] <= end:
            moment, ring = self._alarms.pop(0)
            self._move_to(max(self._now, moment))
            ring()
        self._move_to(end)

    def follow(self, follower: Follower) -> None:
        """Call `follower.clock_moved()` whenever the time changes, as long as `follower` exists."""
        self._followers.add(follower)

    def _move_to(self, moment: datetime) -> None:
        self._now = moment
        for follower in list(self._followers):
            follower.clock_moved()

    @contextmanager
    def alarms(self, alarms: list[Alarm]) -> Iterator[None]:
        """Call these alarms when the clock passes their times inside the block.

        Alarms of outer blocks wait until the block ends.
        """
        before, self._alarms = self._alarms, sorted(alarms, key=lambda alarm: alarm[0])
        try:
            yield
        finally:
            self._alarms = before
