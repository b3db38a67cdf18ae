"""Messages that a switch holds, in Redis: they wait in the delay store, and are known by switch.

A parked message is an entry of the delay store that is due late. A sorted set for each switch has
the entries' names in the order in which they were parked, and a set has the switches that hold any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis

from taskyard.broker.redis_delay import DelayStore
from taskyard.clock import us_of
from taskyard.store import Argument, Script

__all__ = ["RELEASE_BATCH", "ParkedMessages", "parked_until_us"]

# One batch must not block the server: 100 moves take well under a millisecond.
RELEASE_BATCH: Final = 100
# A message that no release finds comes back by itself, and is parked again if the switch is on.
_LOOK_AGAIN_US: Final = us_of(24 * 3600)
# After the end of a switch its messages are released in their order, before they are due.
_AFTER_END_US: Final = us_of(10)


def parked_until_us(now_us: int, until_us: int) -> int:
    """Return when a parked message comes back by itself; `until_us` is the switch's end or 0."""
    look_again_us = now_us + _LOOK_AGAIN_US
    return min(until_us + _AFTER_END_US, look_again_us) if until_us else look_again_us


class ParkedMessages:
    """The parked messages of one namespace at a Redis broker; methods raise redis-py's errors."""

    def __init__(self, namespace: str, client: redis.Redis) -> None:
        store = DelayStore(namespace, client)
        self._delayed = [store.due_key, store.messages_key]
        self.key = store.parked_key
        self._client = client
        self._park, self._release = (
            Script.of("taskyard.broker", name) for name in ("park", "release_parked")
        )

    def types(self, switch: str) -> dict[str, str]:
        """Return the keys of a switch's messages and the Redis types that they must have."""
        kinds = ("zset", "hash", "set", "zset")
        return dict(zip(self._keys(switch), kinds, strict=True))

    def park(self, switch: str, entry: Sequence[Argument]) -> None:
        """Store one entry of `delay_entry` until `switch`, the field's text, is off."""
        self._park(self._client, self._keys(switch), [*entry, switch])

    def switches(self) -> set[str]:
        """Return the fields of the switches that hold messages, on or not."""
        found: Any = self._client.smembers(self.key)
        return {field.decode("utf-8", "replace") for field in found}

    def release(self, switch: str, batch: int = RELEASE_BATCH) -> int:
        """Make at most `batch` messages of a switch due now, the first parked first.

        Returns how many were looked at: fewer than `batch` if none is left.
        """
        return int(self._release(self._client, self._keys(switch), [switch, batch]))

    def waiting(self, switch: str) -> int:
        """Return how many messages a switch holds, at most: some may have gone on otherwise."""
        return int(self._client.zcard(self._keys(switch)[3]))

    def holding(self, name: str) -> tuple[str, ...]:
        """Return the fields of the switches that hold the entry of this name, on or not."""
        switches = sorted(self.switches())
        with self._client.pipeline(transaction=False) as pipe:
            for switch in switches:
                pipe.zscore(self._keys(switch)[3], name)
            scores = pipe.execute()
        return tuple(
            switch for switch, score in zip(switches, scores, strict=True) if score is not None
        )

    def _keys(self, switch: str) -> list[str]:
        return [*self._delayed, self.key, f"{self.key}:{switch}"]
