"""The records of a yard in memory: the Redis scripts themselves, on a server in this process."""

from __future__ import annotations

from typing import Any

from taskyard.clock import to_us
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.storage import Storage

__all__ = ["MemoryRecords"]


class MemoryRecords(Records):
    """`taskyard.records.Records` without a server, in the time of `clock`."""

    def __init__(self, clock: YardClock, settings: Settings) -> None:
        self.storage = Storage(clock)
        # There are no replicas here to wait for.
        super().__init__(self.storage.client, settings.model_copy(update={"replicas": 0}))

    def _source(self, name: str) -> str:
        return self.storage.prelude + super()._source(name)

    def now_us(self) -> int:
        """The time of the clock that tests move."""
        return to_us(self.storage.clock.now())

    def events(self, job_id: str) -> list[dict[str, str]]:
        """The job's events in their order."""
        entries: Any = self.client.xrange(self.keys.lifecycle)
        events = [{name.decode(): value.decode() for name, value in e.items()} for _, e in entries]
        return [event for event in events if event["job"] == job_id]
