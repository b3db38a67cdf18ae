"""The records of a yard in memory: production's Redis scripts, on a server in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taskyard.clock import to_us
from taskyard.records import Records
from taskyard.records.records import no_domain
from taskyard.settings import Settings
from taskyard.store import read_lua
from taskyard.testing.clock import YardClock

__all__ = ["MemoryRecords"]

_NOW: Final = "taskyard-testing:now"
_LIFETIMES: Final = "taskyard-testing:lifetimes"


try:
    # Without Lua fakeredis can be imported all the same, and refuses every script later.
    import lupa  # noqa: F401
    from fakeredis import FakeRedis, FakeServer
except ImportError as error:
    raise ImportError(
        "a yard needs fakeredis to run the record scripts, and fakeredis was not imported "
        f"({error}); install 'taskyard[testing]'"
    ) from error


class Storage:
    """A Redis in memory for one yard; its data ends with this object.

    fakeredis reads the machine's clock. So `prelude` gives the scripts the yard's time, and
    expired keys are removed when the yard's clock is moved.
    """

    def __init__(self, clock: YardClock) -> None:
        self.clock = clock
        # A server without a name belongs only to this client.
        self.client = FakeRedis(server=FakeServer())
        self.clock_moved()
        clock.follow(self)

    @property
    def prelude(self) -> str:
        """Return the Lua code that goes before each script."""
        names = f"local NOW, LIFETIMES = '{_NOW}', '{_LIFETIMES}'\n"
        return names + read_lua("taskyard.testing", "server")

    def ends_by_itself(self, key: str) -> bool:
        """Return whether the key has an expiry time."""
        return self.client.zscore(_LIFETIMES, key) is not None

    def clock_moved(self) -> None:
        """Copy the clock's time, and remove the keys that have expired."""
        now_us = self.clock.now_us()
        # The scripts split it into seconds and six digits.
        self.client.set(_NOW, f"{now_us:07d}")
        ended = self.client.zrangebyscore(_LIFETIMES, "-inf", now_us)
        if ended:
            self.client.delete(*ended)
            self.client.zrem(_LIFETIMES, *ended)


class MemoryRecords(Records):
    """The job records, `taskyard.records.Records`, without a server and in the time of `clock`."""

    def __init__(
        self,
        clock: YardClock,
        settings: Settings,
        *,
        domain_of: Callable[[str], str] = no_domain,
    ) -> None:
        self.storage = Storage(clock)
        # There are no replicas here to wait for.
        alone = settings.model_copy(update={"replicas": 0})
        super().__init__(self.storage.client, alone, domain_of=domain_of)

    def _source(self, name: str) -> str:
        return self.storage.prelude + super()._source(name)

    def now_us(self) -> int:
        """Return the time of the clock that tests move, in microseconds."""
        return to_us(self.storage.clock.now())

    def events(self, job_id: str) -> list[dict[str, str]]:
        """Return the job's events in their order."""
        entries: Any = self.client.xrange(self.keys.lifecycle)
        events = [{name.decode(): value.decode() for name, value in e.items()} for _, e in entries]
        return [event for event in events if event["job"] == job_id]
