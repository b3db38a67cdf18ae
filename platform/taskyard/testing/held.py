"""What the switches of a yard in memory hold, and when they end.

Alone because the yard asks it between the messages that its worker serves.
"""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.switches import Mode, RedisSwitches, fields_of

__all__ = ["Held"]


@dataclass(frozen=True)
class Held:
    """What the switches in a yard's records hold, by the yard's clock."""

    switches: RedisSwitches

    def holds(self, queue: str) -> bool:
        """Return whether a switch holds all jobs of the queue."""
        on = self.switches.read().in_force()
        found = (on.get(field) for field in fields_of(queue, "", None))
        return any(state is not None and state.mode is Mode.HOLD for state in found)

    def is_on(self, switch: str) -> bool:
        """Return whether the switch with this text as its field is on."""
        return switch in map(str, self.switches.read().in_force())

    def next_end_us(self) -> int | None:
        """Return when the next switch ends by itself; None if none does."""
        on = self.switches.read().in_force().values()
        return min((state.until_us for state in on if state.until_us), default=None)
