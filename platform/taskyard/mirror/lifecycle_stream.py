"""The lifecycle stream as a queue: a consumer group whose entries are acknowledged one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from taskyard.records.job_keys import Keys
from taskyard.records.verb_events import announced
from taskyard.store import named

__all__ = ["GROUP", "LifecycleStream", "StreamEntry"]

GROUP: Final = "mirror"
# Longer than a batch takes. If a living consumer waits longer for Postgres, two consumers store the
# same events, which changes nothing.
_CLAIM_IDLE_MS: Final = 20_000
_FORGET_IDLE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of the lifecycle stream."""

    id: str
    fields: Mapping[bytes, bytes]


class LifecycleStream:
    """One consumer of the group `mirror`; it counts as dead when idle for `claim_idle_ms`."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        consumer: str,
        claim_idle_ms: int = _CLAIM_IDLE_MS,
    ) -> None:
        self._client = client
        self._namespace, self._key = namespace, Keys(namespace).lifecycle
        self._consumer = consumer
        self._claim_idle_ms = claim_idle_ms
        self._unsure = False

    def take(self, limit: int, wait_ms: int) -> list[StreamEntry]:
        """Return up to `limit` new entries, waiting `wait_ms` for the first.

        After a lost connection the first call returns the entries that this consumer has taken
        already: the server's reply with them, or their acknowledgement, may have been lost with the
        connection.
        """
        own = self._read("0", limit, 1) if self._unsure else []
        return own or self._read(">", limit, wait_ms)

    def _read(self, start: str, limit: int, wait_ms: int) -> list[StreamEntry]:
        self._unsure = True
        try:
            answer: Any = self._client.xreadgroup(
                GROUP, self._consumer, {self._key: start}, count=limit, block=max(1, wait_ms)
            )
        except ResponseError as error:
            self._create_group(error)
            self._unsure = False
            return []
        entries = _entries(_only(answer))
        self._unsure = start == "0" and bool(entries)
        return entries

    def reclaim(self, limit: int) -> list[StreamEntry]:
        """Take over up to `limit` entries that a dead consumer left unacknowledged."""
        try:
            answer: Any = self._client.xautoclaim(
                self._key, GROUP, self._consumer, self._claim_idle_ms, count=limit
            )
        except ResponseError as error:
            self._create_group(error)
            return []
        return _entries(answer[1])

    def announced(self, entries: Sequence[StreamEntry]) -> frozenset[bytes]:
        """Return the names in the entries' field `worker` that are known as workers' names."""
        names = {entry.fields.get(b"worker", b"") for entry in entries}
        return announced(self._client, self._namespace, names)

    def settle(self, entries: Sequence[StreamEntry]) -> None:
        """Remove entries from group and stream in one step, so that no entry stays in Redis."""
        if not entries:
            return
        ids = [entry.id for entry in entries]
        unsure, self._unsure = self._unsure, True
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xack(self._key, GROUP, *ids)
            pipeline.xdel(self._key, *ids)
            pipeline.execute()
        self._unsure = unsure

    def forget_dead(self) -> None:
        """Remove consumers that hold no entry and were idle for an hour."""
        try:
            consumers: Any = self._client.xinfo_consumers(self._key, GROUP)
        except ResponseError as error:
            self._create_group(error)
            return
        for consumer in consumers:
            if consumer["pending"] == 0 and consumer["idle"] > _FORGET_IDLE_MS:
                self._client.xgroup_delconsumer(self._key, GROUP, consumer["name"])

    def _create_group(self, cause: ResponseError) -> None:
        """Create the group if it is missing (first start, flush); raise other refusals."""
        if not str(cause).startswith(("NOGROUP", "ERR no such key", "no such key")):
            raise named(self._client, cause, {self._key: "stream"})
        try:
            self._client.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _only(answer: Any) -> list[Any]:
    """Return the entries of the one requested stream; the two Redis protocols differ in shape."""
    if not answer:
        return []
    streams = list(answer.values()) if isinstance(answer, dict) else [pair[1] for pair in answer]
    first = streams[0]
    return first[0] if first and isinstance(first[0], list) else first


def _entries(raw: Sequence[Any]) -> list[StreamEntry]:
    # An entry that was deleted while pending has None for its fields.
    return [StreamEntry(_text(key), fields or {}) for key, fields in raw]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
