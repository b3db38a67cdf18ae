"""The stamps that Celery's commands have revoked, kept by one worker.

Only a message bears its stamps, so the worker compares each stamped message that it takes. As in
Celery, a worker that starts later does not know them, and none is kept for over three hours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final

from taskyard.clock import Clock
from taskyard.engine.revocation import Revocation

__all__ = ["MOST_STAMPS", "RevokedStamps"]

MOST_STAMPS: Final = 10_000
"""The oldest are forgotten first: anyone who can publish can send any number."""
_KEPT_S: Final = 3 * 3600.0

_Pair = tuple[str, Hashable]


class RevokedStamps:
    """Each revoked stamp with the latest command that revoked it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[_Pair, tuple[float, Revocation]] = OrderedDict()

    def add(self, stamps: Mapping[str, Any], revocation: Revocation) -> None:
        """Revoke stamps: values by the name of their header, one or a list of them."""
        until_s = self._clock.monotonic_s() + _KEPT_S
        for pair in _pairs(stamps):
            self._found.pop(pair, None)
            self._found[pair] = (until_s, revocation)
        while len(self._found) > MOST_STAMPS:
            self._found.popitem(last=False)

    def find(self, stamps: Mapping[str, Any]) -> Revocation | None:
        """Return the command that has revoked one of a message's stamps."""
        now_s = self._clock.monotonic_s()
        for pair in _pairs(stamps):
            until_s, revocation = self._found.get(pair, (0.0, None))
            if until_s > now_s:
                return revocation
        return None


def _pairs(stamps: Mapping[str, Any]) -> Iterator[_Pair]:
    """Return each stamp with the name of its header; values that are no stamps are left out."""
    for name, given in stamps.items():
        for value in given if isinstance(given, list | tuple | set) else (given,):
            if isinstance(value, str | int | float):
                yield name, value
