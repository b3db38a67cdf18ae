"""Find messages at a Redis broker: in the queues, unacknowledged, in the delay store."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import redis

from taskyard.inspection.broker_keys_to_search import MessageLocations
from taskyard.inspection.record_fields import Seen
from taskyard.inspection.search_budget import Budget
from taskyard.jobs.states import State
from taskyard.transport.stored_messages import stored_parts
from taskyard.wire.stamp_header import Stamp

__all__ = [
    "Held",
    "Messages",
    "Position",
    "count_messages",
    "find_held",
    "find_messages",
    "find_of_job",
    "note_message",
]

_CHUNK: Final = 500
Position = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Held:
    """A message that a worker holds: its keys, its tag there, and its stamp."""

    unacked: str
    index: str
    tag: str
    position: Position | None


@dataclass(slots=True)
class Messages:
    """The stamps of every job's messages, and the dead letters on their way to Postgres.

    A stamp is None for a message without one. Messages that workers hold are in `held` too, those
    that wait in `waiting`, with the key where each was found.
    """

    stamps: dict[str, set[Position | None]] = field(default_factory=lambda: defaultdict(set))
    waiting: dict[str, dict[Position | None, str]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    held: dict[str, set[Held]] = field(default_factory=lambda: defaultdict(set))
    letters: set[str] = field(default_factory=set)

    def serves(self, seen: Seen) -> bool:
        """Return whether one of the messages will continue this job."""
        return any(_carries(stamp, seen) for stamp in self.stamps.get(seen.job_id, ()))

    def waits(self, seen: Seen) -> bool:
        """Return whether this job's next message waits in a queue or in the delay store."""
        return self.waits_at(seen) is not None

    def waits_at(self, seen: Seen) -> str | None:
        """Return the key where this job's next message waits; None if it waits nowhere."""
        places = self.waiting.get(seen.job_id, {})
        return next((key for stamp, key in places.items() if _carries(stamp, seen)), None)

    def holding(self, seen: Seen) -> list[Held]:
        """Return the messages that will continue this job and that workers hold."""
        return [one for one in self.held.get(seen.job_id, ()) if _carries(one.position, seen)]

    def stale(self, seen: Seen) -> list[Position]:
        """Return the positions of this job's messages that no worker runs any more."""
        stamps = self.stamps.get(seen.job_id, ())
        return sorted(one for one in stamps if one is not None and not _carries(one, seen))

    def merge(self, other: Messages) -> None:
        """Add the messages that another search found."""
        for job_id, stamps in other.stamps.items():
            self.stamps[job_id] |= stamps
        for job_id, places in other.waiting.items():
            self.waiting[job_id] |= places
        for job_id, held in other.held.items():
            self.held[job_id] |= held
        self.letters |= other.letters


def _carries(stamp: Position | None, seen: Seen) -> bool:
    if seen.state is State.NONE or stamp is None or stamp >= seen.position:
        return True
    epoch, generation, seq = seen.position
    if seen.state is State.REROUTED and stamp[0] == epoch:
        return True  # whoever takes it forwards it
    # The message whose own decision was this retry: its next delivery publishes the successor.
    return seen.state in (State.RETRYING, State.DEAD_LETTERED) and stamp == (
        epoch,
        generation,
        seq - 1,
    )


def count_messages(client: redis.Redis, where: MessageLocations) -> int:
    """Count the messages without reading them."""
    with client.pipeline(transaction=False) as pipe:
        for name in where.lists:
            pipe.llen(name)
        for name in (*(unacked for unacked, _ in where.held), where.delayed):
            pipe.hlen(name)
        return sum(pipe.execute())


def find_held(
    client: redis.Redis, where: MessageLocations, budget: Budget, job_id: str | None = None
) -> Messages:
    """Find the messages that workers hold, of one job or of all."""
    found = Messages()
    for document, place in _held(client, where):
        if not budget.ask():
            break
        headers = document.get("headers") if isinstance(document, dict) else None
        if isinstance(headers, dict) and job_id in (None, headers.get("id")):
            note_message(found, document, place)
    return found


def find_of_job(
    client: redis.Redis, where: MessageLocations, seen: Seen, budget: Budget
) -> Messages:
    """Find the messages of one job; a message that waits is searched if no worker holds one.

    What moves from key to key meanwhile may be missed, so what is not found is searched twice.
    """
    found = Messages()
    for _ in range(2):
        found.merge(find_held(client, where, budget, seen.job_id))
        if not found.holding(seen):
            _find_waiting(found, client, where, seen, budget)
        if found.serves(seen) or budget.spent:
            break
    return found


def _find_waiting(
    found: Messages, client: redis.Redis, where: MessageLocations, seen: Seen, budget: Budget
) -> None:
    job_id = json.dumps(seen.job_id)[1:-1].encode()
    for key, raw in chain(_queued(client, where), _delayed(client, where)):
        if not budget.ask():
            return
        if job_id not in raw:
            continue
        note_message(found, _loaded(raw), key)
        if found.waits(seen):
            return


def find_messages(client: redis.Redis, where: MessageLocations, budget: Budget) -> Messages:
    """Find every message.

    The search may miss a message that moves from key to key meanwhile, so search twice.
    """
    found = Messages()
    for document, place in _documents(client, where):
        if not budget.ask():
            break
        note_message(found, document, place)
    return found


def note_message(found: Messages, document: Any, place: str | tuple[str, str, str]) -> None:
    """Add a message to `found`: with the key where it waits, or unacked hash, index and tag."""
    headers = document.get("headers") if isinstance(document, dict) else None
    job_id = headers.get("id") if isinstance(headers, dict) else None
    if isinstance(headers, dict) and isinstance(job_id, str):
        position = _position(headers)
        found.stamps[job_id].add(position)
        if isinstance(place, str):
            found.waiting[job_id][position] = place
        else:
            found.held[job_id].add(Held(*place, position))
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


def _documents(
    client: redis.Redis, where: MessageLocations
) -> Iterator[tuple[Any, str | tuple[str, str, str]]]:
    """Yield each message with its key; with unacked hash, index and tag if a worker holds it."""
    for key, raw in _queued(client, where):
        yield _loaded(raw), key
    yield from _held(client, where)
    for key, raw in _delayed(client, where):
        yield _loaded(raw), key


def _held(
    client: redis.Redis, where: MessageLocations
) -> Iterator[tuple[Any, tuple[str, str, str]]]:
    for unacked, index in where.held:
        for tag, stored in client.hscan_iter(unacked, count=_CHUNK):
            yield stored_parts(stored)[0], (unacked, index, tag.decode("utf-8", "replace"))


def _queued(client: redis.Redis, where: MessageLocations) -> Iterator[tuple[str, bytes]]:
    for name in where.lists:
        for raw in _list(client, name):
            yield name, raw


def _delayed(client: redis.Redis, where: MessageLocations) -> Iterator[tuple[str, bytes]]:
    for _, entry in client.hscan_iter(where.delayed, count=_CHUNK):
        yield where.delayed, entry.partition(b"\n")[2]


def _list(client: redis.Redis, key: str) -> Iterator[bytes]:
    """Yield a list from its left end: new entries are added there, so none is skipped."""
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
