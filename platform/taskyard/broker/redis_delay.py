"""The delay store in Redis: messages wait there until they are due.

A sorted set holds the due times, a hash the messages. The same entry again replaces the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from taskyard.store import Argument, Script, named
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.stamp_header import Stamp

__all__ = ["PROMOTE_BATCH", "DelayStore", "delay_entry"]

# One batch must not block the server: 100 moves take well under a millisecond.
PROMOTE_BATCH: Final = 100
# How long a message whose key has another type waits before the next try.
_ODD_LIST_WAIT_MS: Final = 5_000
_ODD_LIST_OVER_S: Final = 15.0


class DelayStore:
    """The delayed messages of one namespace at a Redis broker."""

    def __init__(self, namespace: str, client: redis.Redis) -> None:
        self.due_key = f"{namespace}:delayed"
        self.messages_key = f"{namespace}:delayed:messages"
        self.parked_key = f"{namespace}:delayed:parked"
        self._client = client
        self._defer, self._promote = (
            Script.of("taskyard.broker", name) for name in ("defer", "promote")
        )
        self._backoff = FailureBackoff()
        self._odd: dict[str, float] = {}

    @property
    def types(self) -> dict[str, str]:
        """The store's keys and the Redis types that they must have."""
        return {self.due_key: "zset", self.messages_key: "hash"}

    def defer(self, entry: Sequence[Argument]) -> None:
        """Store one entry of `delay_entry`; raises redis-py's errors."""
        self._defer(self._client, list(self.types), entry)

    def load(self, pipe: Any) -> None:
        """Append the load of the script to a pipeline."""
        self._defer.queue_load(pipe)

    def queue(self, pipe: Any, entry: Sequence[Argument]) -> None:
        """Append one entry to a pipeline whose server has the script."""
        self._defer.queue(pipe, list(self.types), entry)

    def promote(self, batch: int = PROMOTE_BATCH) -> int:
        """Move at most `batch` due messages to their queues; return how many were due."""
        types = self.types
        try:
            due, *odd = self._promote(self._client, list(types), [batch, _ODD_LIST_WAIT_MS])
        except ResponseError as error:
            raise named(self._client, error, types) from None
        self._note_odd({key.decode() for key in odd})
        return int(due)

    def _note_odd(self, keys: set[str]) -> None:
        now = monotonic()
        for key in keys:
            error = named(self._client, ResponseError(f"WRONGTYPE of {key!r}"), {key: "list"})
            what = _delayed_of(key)
            self._backoff.failed(
                what, error, action="key_misplaced", facts={"key": key}, level=logging.ERROR
            )
            self._odd[key] = now
        # They are tried again every few seconds; those that are not refused again have succeeded.
        for key in [key for key, seen in self._odd.items() if now - seen > _ODD_LIST_OVER_S]:
            self._backoff.succeeded(_delayed_of(key))
            del self._odd[key]

    def waiting(self) -> int:
        """Return how many messages are in the delay store."""
        return int(self._client.zcard(self.due_key))


def delay_entry(
    job_id: str, stamp: Stamp, due_us: int, key: str, document: str
) -> Sequence[Argument]:
    """Return the entry of a message that goes to the list `key` when it is due."""
    # The same message again replaces it; one without an epoch has only Celery's counts.
    member = f"{job_id}:{stamp.generation}:{stamp.seq}"
    if stamp.nesting:
        member += f":{stamp.nesting}"
    return [member, due_us // 1000, f"{key}\n{document}"]


def _delayed_of(key: str) -> str:
    return f"due messages stay in the delay store, because Redis refuses to move them to {key}"
