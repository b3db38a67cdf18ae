"""Where messages lie on a Redis broker: in the queues, unacknowledged, in the delay store."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from taskyard.jobs.states import State
from taskyard.reconcile.report import Budget
from taskyard.reconcile.seen import Seen
from taskyard.reconcile.whereabouts import Whereabouts
from taskyard.transport.stored import stored_parts
from taskyard.wire.headers import Stamp

__all__ = ["Messages", "count_messages", "find_messages"]

_CHUNK: Final = 500
Position = tuple[int, int, int]


@dataclass(slots=True)
class Messages:
    """The stamps of every job's messages, None for one without, and the letters on their way."""

    stamps: dict[str, set[Position | None]] = field(default_factory=lambda: defaultdict(set))
    letters: set[str] = field(default_factory=set)

    def serves(self, seen: Seen) -> bool:
        """Whether some message will carry this record on."""
        return any(_carries(stamp, seen) for stamp in self.stamps.get(seen.job_id, ()))

    def merge(self, other: Messages) -> None:
        """Add what another look saw."""
        for job_id, stamps in other.stamps.items():
            self.stamps[job_id] |= stamps
        self.letters |= other.letters


def _carries(stamp: Position | None, seen: Seen) -> bool:
    if stamp is None or stamp >= seen.position:
        return True
    epoch, generation, seq = seen.position
    # The message whose own decision was this retry: its next delivery publishes the successor.
    return seen.state in (State.RETRYING, State.DEAD_LETTERED) and stamp == (
        epoch,
        generation,
        seq - 1,
    )


def count_messages(client: redis.Redis, where: Whereabouts) -> int:
    """How many messages there are, without looking at them."""
    with client.pipeline(transaction=False) as pipe:
        for name in where.lists:
            pipe.llen(name)
        for name in (*where.held, where.delayed):
            pipe.hlen(name)
        return sum(pipe.execute())


def find_messages(client: redis.Redis, where: Whereabouts, budget: Budget) -> Messages:
    """Every message; one that moves from place to place meanwhile may be missed, so look twice."""
    found = Messages()
    for document in _documents(client, where):
        if not budget.ask():
            break
        _note(found, document)
    return found


def _note(found: Messages, document: Any) -> None:
    headers = document.get("headers") if isinstance(document, dict) else None
    job_id = headers.get("id") if isinstance(headers, dict) else None
    if isinstance(headers, dict) and isinstance(job_id, str):
        found.stamps[job_id].add(_position(headers))
        return
    letter = _letter(document)
    if letter is not None:
        found.letters.add(letter)


def _position(headers: dict[str, Any]) -> Position | None:
    try:
        stamp = Stamp.read(headers)
    except ValueError:
        return None
    return None if stamp is None else (stamp.epoch, stamp.generation, stamp.seq)


def _letter(document: Any) -> str | None:
    try:
        body = document["body"]
        if document["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        return str(json.loads(body)["letter_id"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _documents(client: redis.Redis, where: Whereabouts) -> Iterator[Any]:
    for name in where.lists:
        for raw in _list(client, name):
            yield _loaded(raw)
    for name in where.held:
        for _, stored in client.hscan_iter(name, count=_CHUNK):
            yield stored_parts(stored)[0]
    for _, entry in client.hscan_iter(where.delayed, count=_CHUNK):
        yield _loaded(entry.partition(b"\n")[2])


def _list(client: redis.Redis, key: str) -> Iterator[bytes]:
    """A list from its left end: new entries come there, so that none is skipped."""
    start = 0
    while True:
        chunk: Any = client.lrange(key, start, start + _CHUNK - 1)
        yield from chunk
        if len(chunk) < _CHUNK:
            return
        start += _CHUNK


def _loaded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
