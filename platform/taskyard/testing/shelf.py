"""Where the records of a yard lie: hashes with an end, results, and the events in their order."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskyard.testing.clock import YardClock

__all__ = ["Shelf"]

Fields = dict[str, str]


@dataclass
class Shelf:
    """What production keeps in Redis; times in microseconds of the yard's clock."""

    clock: YardClock
    events: list[Fields] = field(default_factory=list)
    deliveries: dict[str, tuple[int, int]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _records: dict[str, Fields] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)
    _results: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def read(self, job_id: str) -> Fields:
        """A copy of the record; empty where there is none, or its end has come."""
        if self.clock.now_us() >= self._ends.get(job_id, 1 << 63):
            self.delete(job_id)
        return dict(self._records.get(job_id, {}))

    def write(self, job_id: str, fields: Mapping[str, str]) -> None:
        """Replace the record; its end stays."""
        self._records[job_id] = dict(fields)

    def delete(self, job_id: str) -> None:
        """Forget the record and its end."""
        self._records.pop(job_id, None)
        self._ends.pop(job_id, None)

    def ends(self, job_id: str) -> bool:
        """Whether the record ends by itself."""
        return job_id in self._ends

    def end_at(self, job_id: str, end_us: int | None) -> None:
        """Let the record end then; None: never."""
        self._ends.pop(job_id, None)
        if end_us is not None:
            self._ends[job_id] = end_us

    def result(self, job_id: str) -> bytes | None:
        """The stored result while it lives."""
        body, end_us = self._results.get(job_id, (b"", 0))
        return body if self.clock.now_us() < end_us else None

    def keep_result(self, job_id: str, body: bytes, end_us: int) -> None:
        """Store a result."""
        self._results[job_id] = body, end_us

    def deliver(self, job_id: str, window_us: int) -> int:
        """Count a delivery beside a record that is not there."""
        count, end_us = self.deliveries.get(job_id, (0, 0))
        now_us = self.clock.now_us()
        count = count + 1 if now_us < end_us else 1
        self.deliveries[job_id] = count, now_us + window_us
        return count

    def drop_result(self, job_id: str) -> None:
        """Forget a result."""
        self._results.pop(job_id, None)
