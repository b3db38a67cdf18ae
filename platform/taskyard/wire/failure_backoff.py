"""Failures that last until an operator acts: when to try again, and what to log.

A missing permission, a key of another type or a full server does not change by itself. The code
that gets such an error tries again with growing waits, since an operator may repair the cause, and
logs each cause once.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from taskyard.wire.redacted_logs import logger

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "FailureBackoff"]

log = logger(__name__)

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 30.0
# An item that was not tried for so long may have been repaired, or have another worker now.
_FORGOTTEN_S: Final = 4 * LONGEST_WAIT_S
_MOST_ITEMS: Final = 10_000
# Job ids, tags and times differ in every message of one cause.
_VARIABLE: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


@dataclass(slots=True)
class _Failing:
    """An action that fails: since when, its causes and items, and how long it waits."""

    since_s: float
    wait_s: float = 0.0
    until_s: float = float("-inf")
    count: int = 0
    causes: set[str] = field(default_factory=set)
    # Item -> (its own wait, when it failed last), the latest last.
    items: dict[str, tuple[float, float]] = field(default_factory=dict)


class FailureBackoff:
    """The lasting failures of one process, by action; threads may share this object.

    `what` is text for people, such as "heartbeat not written", and the key. If the action fails for
    some things and works for others, `item` distinguishes them, such as a job's id. The wait of an
    item grows with its own failures; the wait of all items grows while none succeeds.
    """

    def __init__(
        self,
        *,
        first_s: float = FIRST_WAIT_S,
        longest_s: float = LONGEST_WAIT_S,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._clock, self._jitter = clock, jitter
        self._failing: dict[str, _Failing] = {}

    def failed(
        self,
        what: str,
        error: object,
        *,
        action: str,
        item: str = "",
        facts: Mapping[str, Any] | None = None,
        level: int = logging.WARNING,
    ) -> float:
        """Note a failure; return how long to wait now, in seconds. Logs the first of each cause."""
        now = self._clock()
        failing = self._failing.setdefault(what, _Failing(now))
        failing.count += 1
        own_s = self._longer(failing.items.pop(item, (0.0, now))[0])
        failing.items[item] = (own_s, now)
        if len(failing.items) > _MOST_ITEMS:
            del failing.items[next(iter(failing.items))]
        if now >= failing.until_s:
            failing.wait_s = self._longer(failing.wait_s)
        # Spread the tries at random, and never wait longer than the log says.
        wait_s = max(own_s, failing.wait_s) * (1 - self._jitter() / 2)
        failing.until_s = max(failing.until_s, now + wait_s)
        cause = _VARIABLE.sub("#", f"{type(error).__name__}: {error}")
        if cause not in failing.causes:
            failing.causes.add(cause)
            self._log_first(level, what, error, {"action": action, **(facts or {})})
        return wait_s

    def succeeded(self, what: str, item: str = "") -> None:
        """Note a success; log the end of the failure when no item fails any more."""
        failing = self._failing.get(what)
        if failing is None:
            return
        now = self._clock()
        failing.wait_s, failing.until_s = 0.0, float("-inf")
        failing.items = {
            name: (wait_s, last_s)
            for name, (wait_s, last_s) in failing.items.items()
            if name != item and now - last_s < _FORGOTTEN_S
        }
        if not failing.items:
            del self._failing[what]
            log.info(
                "%s: this works again, after %d failures in %.0f s",
                what,
                failing.count,
                now - failing.since_s,
                extra={"action": "works_again", "what": what, "failures": failing.count},
            )

    def waits_s(self, what: str) -> float:
        """Return how long to wait before the next try of `what`, in seconds; 0 to try at once."""
        failing = self._failing.get(what)
        return 0.0 if failing is None else max(failing.until_s - self._clock(), 0.0)

    def _longer(self, wait_s: float) -> float:
        return min(2 * wait_s, self._longest_s) if wait_s else self._first_s

    def _log_first(self, level: int, what: str, error: object, extra: dict[str, Any]) -> None:
        log.log(
            level,
            "%s: %s. Taskyard tries again, with waits of up to %g s, and logs when it works or "
            "fails for another reason",
            what,
            str(error).rstrip("."),
            self._longest_s,
            extra=extra,
        )
