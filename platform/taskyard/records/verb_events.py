"""Verbs of processes without Postgres: entries of the lifecycle stream with their credential.

The mirror verifies the credential again and writes the audit rows. A verb of a verified caller is
essential and is never left out. Denials without an identity are left out, and counted, where the
stream is over 60 % of its budget: anyone who can publish can cause any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import redis

from taskyard.access import Action
from taskyard.clock import from_us
from taskyard.records.job_keys import Keys
from taskyard.records.script_source import thin_at
from taskyard.wire.control_characters import STEERING
from taskyard.wire.stamp_header import LONGEST_ID

__all__ = ["VERB_FIELD", "VerbEvent", "VerbEvents"]

VERB_FIELD: Final = b"verb"
"""Entries of the stream with this field are verbs; all others are of jobs."""
# Of what claims to be a credential so much is kept: a true one is far shorter.
_LONGEST: Final = 8192
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
            "credential": self.credential[:_LONGEST],
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
        if not 0 < len(event.worker) <= LONGEST_ID or STEERING.search(event.worker):
            # A NUL would be refused by Postgres each time, and stop the mirror.
            raise ValueError(
                f"the field 'worker' is not the name of a worker: {event.worker[:60]!r}"
            )
        try:
            _ = event.at
        except (OverflowError, OSError) as error:
            raise ValueError(f"the field 'at' is not a time in microseconds: {error}") from error
        return event


class VerbEvents:
    """Appends a worker's verbs to the lifecycle stream."""

    def __init__(self, client: redis.Redis, namespace: str, budget: int) -> None:
        self._client, self._keys, self._thin_at = client, Keys(namespace), thin_at(budget)

    def append(self, event: VerbEvent, *, essential: bool) -> None:
        """Append the event; raises redis-py's errors."""
        if not essential and self._client.xlen(self._keys.lifecycle) >= self._thin_at:
            self._client.hincrby(self._keys.gaps, _LEFT_OUT)
            return
        fields: dict[Any, Any] = dict(event.fields())
        self._client.xadd(self._keys.lifecycle, fields)
