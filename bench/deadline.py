"""How long something may still go on."""

from __future__ import annotations

from taskyard.clock import SYSTEM_CLOCK, Clock

__all__ = ["Deadline"]


class Deadline:
    """`seconds` from now on the monotonic clock."""

    def __init__(self, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._at_s = clock.monotonic_s() + seconds

    @property
    def left_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self._at_s - self._clock.monotonic_s()

    @property
    def passed(self) -> bool:
        """Whether nothing new should begin."""
        return self.left_s <= 0
