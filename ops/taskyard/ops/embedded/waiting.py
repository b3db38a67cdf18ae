"""Wait for a condition with a deadline."""

from __future__ import annotations

from collections.abc import Callable

from taskyard.clock import SYSTEM_CLOCK, Clock

__all__ = ["until"]


def until(
    condition: Callable[[], bool],
    *,
    within_s: float,
    every_s: float = 0.02,
    clock: Clock = SYSTEM_CLOCK,
) -> bool:
    """Call `condition` every `every_s` seconds; return False if it still fails after `within_s`."""
    deadline_s = clock.monotonic_s() + within_s
    while not condition():
        if clock.monotonic_s() >= deadline_s:
            return False
        clock.wait_s(every_s)
    return True
