"""What a storm has at hand: the town, its draws, and the notes of what it did."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from chaos.town import Town

__all__ = ["Faults"]


@dataclass
class Faults:
    """What a storm did: the moments at which each fault was over; `stop` ends it."""

    town: Town
    rng: random.Random
    stop: threading.Event
    ended_at: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def over(self, what: str) -> None:
        """Note the end of a fault."""
        self.ended_at.append(time.time())
        self.told.append(what)

    def hold(self, low_s: float, high_s: float) -> None:
        """Let a fault stand for a drawn time, or until the storm is to end."""
        self.stop.wait(self.rng.uniform(low_s, high_s))

    def pause(self, low_s: float, high_s: float) -> bool:
        """Wait a drawn time; False when the storm is to end."""
        return not self.stop.wait(self.rng.uniform(low_s, high_s))
