"""Find a job's message that waits at a Redis broker, and move it to another queue in one step.

Only a part of a long queue is searched. A message that is not found there stays in its queue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from taskyard.broker.redis_delay import DelayStore
from taskyard.store import Script
from taskyard.wire.stamp_header import Stamp

__all__ = ["Document", "Position", "QueuedMessages"]

Document = dict[str, Any]
Position = tuple[int, int, int]
# A piece blocks the server for well under a millisecond.
_PIECE: Final = 200
_PIECES: Final = 10


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A message that waits; `member` is its name in the delay store, empty if it is in `key`."""

    key: str
    member: str
    raw: bytes
    document: Document


class QueuedMessages:
    """The waiting messages of one Redis broker; every method raises redis-py's errors."""

    def __init__(self, client: redis.Redis, store: DelayStore) -> None:
        self._client, self._store = client, store
        self._find, self._move = (
            Script.of("taskyard.broker", name) for name in ("find_queued", "move_queued")
        )

    def move(
        self,
        job_id: str,
        lists: Sequence[str],
        first: Position,
        before: Position,
        moved: Callable[[Document], tuple[str, str]],
    ) -> bool:
        """Move the job's message from `lists` or the delay store; return whether it was found.

        Only a message with a position from `first` to before `before` is moved, or one without a
        stamp. `moved` gets the message, and returns the list to which it goes and its new text, in
        which its position is `before`. In the delay store the message keeps its due time; one
        that a switch holds is due now, because the switch may not be on for its new queue.
        """
        member = f"{job_id}:{before[1]}:{before[2]}"
        for waiting in self._waiting(job_id, lists, first):
            if not _is_between(waiting.document, job_id, first, before):
                continue
            key, text = moved(waiting.document)
            store = self._store
            keys = [waiting.key, store.due_key, store.messages_key, key, store.parked_key]
            if self._move(self._client, keys, [waiting.raw, waiting.member, text, member]):
                return True
        return False

    def _waiting(self, job_id: str, lists: Sequence[str], first: Position) -> Iterator[_Waiting]:
        yield from self._delayed(job_id, first)
        needle = json.dumps(job_id)
        for key in lists:
            for piece in range(_PIECES):
                length, *found = self._find(self._client, [key], [needle, piece * _PIECE, _PIECE])
                for raw in found:
                    yield from _read(key, "", raw, raw)
                if length < _PIECE:
                    break

    def _delayed(self, job_id: str, first: Position) -> Iterator[_Waiting]:
        """Yield the messages of the job's first attempt that may wait, and of its retry."""
        _, generation, seq = first
        members = [f"{job_id}:{generation}:{at}" for at in (seq, seq + 1)]
        entries: Any = self._client.hmget(self._store.messages_key, members)
        for member, entry in zip(members, entries, strict=True):
            if entry is not None:
                key, _, raw = entry.partition(b"\n")
                yield from _read(key.decode(), member, entry, raw)


def _read(key: str, member: str, entry: bytes, raw: bytes) -> Iterator[_Waiting]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        yield _Waiting(key, member, entry, document)


def _is_between(document: Document, job_id: str, first: Position, before: Position) -> bool:
    headers, properties = document.get("headers"), document.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        return False
    if headers.get("id") != job_id:
        return False
    try:
        stamp = Stamp.read(headers)
    except ValueError:
        return False
    return stamp is None or first <= (stamp.epoch, stamp.generation, stamp.seq) < before
