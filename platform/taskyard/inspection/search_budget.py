"""How long a search may take, and how long what moves may be missing before it counts as lost."""

from __future__ import annotations

import threading
from typing import Final

from taskyard.clock import Clock

__all__ = ["GRACE_S", "Budget"]

GRACE_S: Final = 60.0
"""Grace time: so long a message may move, a publication be unconfirmed, the mirror be late."""


class Budget:
    """The time that a comparison may take; what is left then is reported as incomplete."""

    def __init__(self, clock: Clock, seconds: float, stop: threading.Event | None = None) -> None:
        self._clock, self._stop = clock, stop
        self._end_s = clock.monotonic_s() + seconds
        self.spent = False

    def ask(self) -> bool:
        """Return whether there is time left; after the first False the answer stays False."""
        stopped = self._stop is not None and self._stop.is_set()
        self.spent = self.spent or stopped or self._clock.monotonic_s() >= self._end_s
        return not self.spent
