"""Verbs of processes without Postgres: entries of the lifecycle stream with their credential.

The mirror verifies the credential again and writes the audit rows. A verb of a verified caller is
essential and is never left out. Denials without an identity are left out, and counted, where the
stream is over 60 % of its budget: anyone who can publish can cause any number of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

import redis

from taskyard.access import Action
from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, LONGEST_CREDENTIAL
from taskyard.clock import from_us, us_of
from taskyard.records.job_keys import Keys
from taskyard.records.script_source import thin_at
from taskyard.wire.control_characters import STEERING
from taskyard.wire.stamp_header import LONGEST_ID

__all__ = ["VERB_FIELD", "VerbEvent", "VerbEvents", "announced", "entry_time"]

VERB_FIELD: Final = b"verb"
"""Entries of the stream with this field are verbs; all others are of jobs."""
# Longer than a mirror lags behind.
_ANNOUNCED_FOR: Final = timedelta(days=30)
_LEFT_OUT: Final = "denied_verb"


@dataclass(frozen=True, slots=True)
class VerbEvent:
    """A verb that `worker` carried out or denied; `code` is why it was denied, otherwise empty."""

    verb: Action
    worker: str
    at_us: int
    code: str = ""
    credential: str = field(default="", repr=False)

    @property
    def at(self) -> datetime:
        """When the verb was carried out or denied, by the worker's clock."""
        return from_us(self.at_us)

    def fields(self) -> dict[str, str | int]:
        """Return the entry as it is written to the stream."""
        return {
            VERB_FIELD.decode(): self.verb.value,
            "worker": self.worker,
            "at": self.at_us,
            "code": self.code,
            "credential": self.credential[:LONGEST_CREDENTIAL],
        }

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read an entry; raises ValueError."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        event = cls(
            verb=Action(texts["verb"]),
            worker=texts.get("worker", ""),
            at_us=int(texts.get("at", "")),
            code=texts.get("code", ""),
            credential=texts.get("credential", ""),
        )
        event.check()
        return event

    def check(self) -> None:
        """Raise ValueError for an event that the mirror cannot store."""
        if not 0 < len(self.worker) <= LONGEST_ID or STEERING.search(self.worker):
            # A NUL would be refused by Postgres each time, and stop the mirror.
            raise ValueError(
                f"the field 'worker' is not the name of a worker: {self.worker[:60]!r}"
            )
        try:
            _ = self.at
        except (OverflowError, OSError) as error:
            raise ValueError(f"the field 'at' is not a time in microseconds: {error}") from error

    def check_appended(self, entry_id: str) -> None:
        """Raise ValueError if the event's time is not the time when its entry was appended.

        Redis chooses the id of an entry, and its time; the event's time comes from whoever
        appended it.
        """
        if abs(self.at - entry_time(entry_id)) > CLOCKS_MAY_DIFFER:
            raise ValueError(
                f"the clocks of the worker and of Redis differ by over {CLOCKS_MAY_DIFFER}. Set "
                "them"
            )


class VerbEvents:
    """Appends a worker's verbs to the lifecycle stream."""

    def __init__(self, client: redis.Redis, namespace: str, budget: int) -> None:
        self._client, self._keys, self._thin_at = client, Keys(namespace), thin_at(budget)

    def append(self, event: VerbEvent, *, essential: bool) -> None:
        """Append the event; raises redis-py's errors.

        Raises ValueError if the mirror will not store an essential event: its verb must not be
        done. Such an event announces its worker in the same step.
        """
        if essential:
            self._append_announced(event)
        elif self._client.xlen(self._keys.lifecycle) >= self._thin_at:
            self._client.hincrby(self._keys.gaps, _LEFT_OUT)
        else:
            self._client.xadd(self._keys.lifecycle, _typed(event))

    def _append_announced(self, event: VerbEvent) -> None:
        event.check()
        with self._client.pipeline(transaction=True) as pipeline:
            key = self._keys.announced
            pipeline.zremrangebyscore(
                key, "-inf", event.at_us - us_of(_ANNOUNCED_FOR.total_seconds())
            )
            pipeline.zadd(key, {event.worker: event.at_us})
            pipeline.xadd(self._keys.lifecycle, _typed(event))
            *_, entry_id = pipeline.execute()
        event.check_appended(entry_id if isinstance(entry_id, str) else entry_id.decode())


def _typed(event: VerbEvent) -> dict[Any, Any]:
    return dict(event.fields())


def announced(client: redis.Redis, namespace: str, workers: Collection[bytes]) -> frozenset[bytes]:
    """Return those of the names under which a worker announced itself; raises redis-py's errors.

    Programs that only enqueue can append to the stream, but need no right to the key of this.
    """
    if not workers:
        return frozenset()
    names: list[Any] = list(workers)
    scores = client.zmscore(Keys(namespace).announced, names)
    return frozenset(name for name, score in zip(names, scores, strict=True) if score is not None)


def entry_time(entry_id: str) -> datetime:
    """Return when Redis took an entry of the stream; raises ValueError for an impossible time.

    The client that appends an entry may choose a later id than Redis would.
    """
    try:
        return from_us(int(entry_id.partition("-")[0]) * 1000)
    except (OverflowError, OSError) as error:
        raise ValueError(f"the entry's id {entry_id[:60]!r} has no time: {error}") from error
