"""Count the broadcasts that this worker denies because nothing verifies the caller.

Anyone who can publish can send thousands a second. So memory, log lines and calls of Redis are
limited: the first denials after each heartbeat are logged and reported at once, the others with the
next heartbeat, each kind as one number.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from itertools import count
from typing import Final

from redis.exceptions import RedisError

from taskyard.clock import Clock, to_us
from taskyard.records.denied_broadcast_reports import (
    WINDOW_S,
    DeniedKind,
    DeniedReport,
    DeniedReports,
)
from taskyard.records.verb_events import MOST_DENIED
from taskyard.wire.redacted_logs import logger

__all__ = ["DeniedBroadcasts"]

log = logger(__name__)

AT_ONCE: Final = 10
"""This many denials between two heartbeats are reported at once; the others wait."""
MOST_TARGETS: Final = 32
"""Denials of this many destinations are counted apart in a window, all others as one kind.

The caller chooses the destination, so without a limit it could make any number of counters.
"""
_OTHER: Final = "other"


class DeniedBroadcasts:
    """The denials of one worker that Redis does not have yet.

    The main loop adds denials, the thread of the heartbeats reports them.
    """

    def __init__(self, reports: DeniedReports, clock: Clock) -> None:
        self._reports, self._clock = reports, clock
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._counts: Counter[tuple[str, DeniedKind]] = Counter()
        self._not_logged: Counter[tuple[str, DeniedKind]] = Counter()
        # Reports of which it is unknown whether Redis has them: they are written again unchanged.
        self._unsure: dict[tuple[str, DeniedKind], DeniedReport] = {}
        self._process, self._numbers = secrets.token_hex(8), count()
        self._left, self._failing = AT_ONCE, False
        self._targets: set[str] = set()
        self._targets_until_s = clock.monotonic_s()

    def add(self, worker: str, kind: DeniedKind) -> None:
        """Count a denial; never raises and never waits for the other thread."""
        with self._lock:
            key = (worker, self._limited(kind))
            self._counts[key] += 1
            at_once = self._left > 0
            if at_once:
                self._left -= 1
            else:
                self._not_logged[key] += 1
        if at_once:
            _log(worker, kind, 1)
            if not self._failing:
                self._write(self._reports)

    def report(self, reports: DeniedReports) -> None:
        """Log and report what was counted since the last heartbeat, by that thread's connection."""
        with self._lock:
            not_logged, self._not_logged = self._not_logged, Counter()
            self._left = AT_ONCE
        for (worker, kind), number in not_logged.items():
            _log(worker, kind, number)
        self._write(reports)

    def _limited(self, kind: DeniedKind) -> DeniedKind:
        now_s = self._clock.monotonic_s()
        if now_s >= self._targets_until_s:
            self._targets, self._targets_until_s = set(), now_s + WINDOW_S
        if kind.target and kind.target not in self._targets:
            if len(self._targets) >= MOST_TARGETS:
                return DeniedKind(kind.verb, kind.code, _OTHER)
            self._targets.add(kind.target)
        return kind

    def _write(self, reports: DeniedReports) -> None:
        """Write all counts, unless the other thread does; what Redis does not take is kept."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            self._prepare()
            for key, report in list(self._unsure.items()):
                reports.write(report)
                del self._unsure[key]
        except RedisError as error:
            self._note_failure(error)
        else:
            self._failing = False
        finally:
            self._writing.release()

    def _prepare(self) -> None:
        """Make a report of each count whose last report is certain."""
        at_us = to_us(self._clock.now())
        with self._lock:
            for key in [key for key in self._counts if key not in self._unsure]:
                worker, kind = key
                denied = min(self._counts[key], MOST_DENIED)
                number = f"{self._process}-{next(self._numbers)}"
                self._unsure[key] = DeniedReport(kind, worker, at_us, denied, number)
                self._counts[key] -= denied
                if not self._counts[key]:
                    del self._counts[key]

    def _note_failure(self, error: RedisError) -> None:
        if not self._failing:
            log.error(
                "the number of denied broadcasts is not in the audit log yet, because Redis did "
                "not store it. The worker tries again with each heartbeat: %s",
                error,
                extra={"action": "denials_not_reported"},
            )
        self._failing = True


def _log(worker: str, kind: DeniedKind, number: int) -> None:
    facts = {"verb": kind.verb.value, "code": kind.code, "count": number}
    if number == 1:
        log.warning(
            "worker %s denied a broadcast of %s: %s",
            worker,
            kind.verb,
            kind.code,
            extra={"action": "broadcast_denied", **facts},
        )
    else:
        log.warning(
            "worker %s denied %d broadcasts of %s since its last heartbeat: %s",
            worker,
            number,
            kind.verb,
            kind.code,
            extra={"action": "broadcast_denied", **facts},
        )
