"""Verbs of processes without Postgres: entries of the lifecycle stream with their credential.

The mirror verifies the credential again and writes the audit rows. A verb of a verified caller is
essential and is never left out of the stream.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

import redis

from taskyard.access import Action
from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, LONGEST_CREDENTIAL
from taskyard.clock import from_us, us_of
from taskyard.records.job_keys import Keys
from taskyard.store import Argument, Script
from taskyard.wire.control_characters import STEERING
from taskyard.wire.stamp_header import LONGEST_ID

__all__ = [
    "ANNOUNCED_FOR",
    "MOST_DENIED",
    "VERB_FIELD",
    "Bound",
    "VerbEvent",
    "VerbEvents",
    "ahead",
    "announced",
    "check_worker",
    "clocks_differ",
    "entry_time",
]

VERB_FIELD: Final = b"verb"
"""Entries of the stream with this field are verbs; all others are of jobs."""
ANNOUNCED_FOR: Final = timedelta(days=30)
"""Longer than a mirror lags behind."""
_AHEAD: Final = "ahead"
MOST_DENIED: Final = 1_000_000
"""One entry counts at most as many denials: what a worker denied in some seconds."""
# The key of a nonce holds the process whose call was the first, and why that was denied. It stays
# until no worker takes the credential, whose clock may be as far behind as the check allows. The
# entry is appended first: where that fails, the nonce is not bound. Redis gives no entry an earlier
# id than the last one had. A client may choose a late id: the mirror would believe no entry then.
# KEYS: nonce, announced workers, stream. ARGV: process, code, worker, time of the event, how far
# clocks may differ, end of the credential (ms), how long names are kept, fields of the entry.
_BIND: Final = Script("""
local bound = redis.call('GET', KEYS[1])
if bound then return bound end
local time = redis.call('TIME')
local now, at, differ = time[1] * 1000000 + time[2], tonumber(ARGV[4]), tonumber(ARGV[5])
if math.abs(now - at) > differ then return '' end
local id = redis.call('XADD', KEYS[3], '*', unpack(ARGV, 8))
if math.abs(tonumber(string.match(id, '^%d+')) * 1000 - at) > differ then
  redis.call('XDEL', KEYS[3], id)
  return 'ahead'
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', at - ARGV[7]))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
bound = ARGV[1] .. ' ' .. ARGV[2]
local left_ms = math.ceil(ARGV[6] + (differ - now) / 1000)
redis.call('SET', KEYS[1], bound, 'PX', string.format('%.0f', math.max(left_ms, 1)))
return bound
""")


@dataclass(frozen=True, slots=True)
class VerbEvent:
    """A verb that `worker` carried out or denied; `code` is why it was denied, otherwise empty.

    `count` is how many denials of unverified callers one entry stands for.
    """

    verb: Action
    worker: str
    at_us: int
    code: str = ""
    credential: str = field(default="", repr=False)
    count: int = 1

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
            "count": self.count,
        }

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read an entry; raises ValueError."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        event = cls(
            verb=Action(texts["verb"]),
            worker=texts.get("worker", ""),
            at_us=_number(texts, "at", ""),
            code=texts.get("code", ""),
            credential=texts.get("credential", ""),
            count=_number(texts, "count", "1"),
        )
        event.check()
        return event

    def check(self) -> None:
        """Raise ValueError for an event that the mirror cannot store."""
        check_worker(self.worker)
        if not 0 < self.count <= MOST_DENIED:
            raise ValueError(
                f"expected a count from 1 to {MOST_DENIED} in the field 'count', got {self.count}"
            )
        try:
            _ = self.at
        except (OverflowError, OSError) as error:
            raise ValueError(
                f"the field 'at' must be microseconds since 1970, got {self.at_us}"
            ) from error


def _number(texts: Mapping[str, str], name: str, default: str) -> int:
    value = texts.get(name, default)
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"the field {name!r} must be a whole number, got {value[:60]!r}") from None


def ahead(stream: str) -> ValueError:
    """Return the error for a stream whose next entries get a time in the future."""
    return ValueError(
        f"the last entry of the stream {stream} has a time in the future, so somebody who can "
        "write to Redis chose it. Let the mirror store what is there, then delete the key"
    )


def clocks_differ() -> ValueError:
    """Return the error for an event whose time the mirror would not believe."""
    return ValueError(
        f"the clocks of the worker and of Redis differ by over {CLOCKS_MAY_DIFFER}. Set "
        "the wrong one (NTP), then repeat the command"
    )


def check_worker(name: str) -> None:
    """Raise ValueError for a text that is not the name of a worker."""
    if not 0 < len(name) <= LONGEST_ID or STEERING.search(name):
        # A NUL would be refused by Postgres each time, and stop the mirror.
        raise ValueError(
            f"the field 'worker' must be a worker's name of 1 to {LONGEST_ID} characters "
            f"without control characters, got {name[:60]!r}. Start the worker under "
            "another name (celery worker --hostname NAME)"
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """Whether a call is the first with its nonce; `code` is why the first was denied, or empty."""

    first: bool
    code: str


class VerbEvents:
    """Appends a worker's verbs to the lifecycle stream."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, Keys(namespace)
        # One for each process: a process that is started again does not repeat what was done.
        self._process = secrets.token_hex(8)

    def bind(self, event: VerbEvent, nonce: str, expires_at_s: float) -> Bound:
        """Bind a nonce to this worker's first call with it, and append the event of that call.

        Both are one step, which also announces the worker. `expires_at_s` is when the worker takes
        the credential no more, in seconds since 1970 by its own clock. Raises ValueError if the
        mirror would not store the event, and redis-py's errors: the verb must not be done then. If
        it is not known whether Redis did the step, the same process may call again and is the
        first call still.
        """
        event.check()
        keys = [self._keys.broadcast(nonce, event.worker), self._keys.announced]
        limits = [
            event.at_us,
            us_of(CLOCKS_MAY_DIFFER.total_seconds()),
            int(expires_at_s * 1000),
            us_of(ANNOUNCED_FOR.total_seconds()),
        ]
        head: list[Argument] = [self._process, event.code, event.worker, *limits]
        fields: list[Argument] = [part for pair in event.fields().items() for part in pair]
        reply = _BIND(self._client, [*keys, self._keys.lifecycle], [*head, *fields])
        process, _, code = (reply if isinstance(reply, str) else reply.decode()).partition(" ")
        if process == _AHEAD:
            raise ahead(self._keys.lifecycle)
        if not process:
            raise clocks_differ()
        return Bound(process == self._process, code)


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
        raise ValueError(
            f"the entry's id must begin with milliseconds since 1970, got {entry_id[:60]!r}"
        ) from error
