"""The messages that wait in the lists of one queue at a Redis broker, and in its delay store."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.broker.redis_delay import DelayStore
from taskyard.broker.waiting_messages import WaitingMessage
from taskyard.store import Argument, Script, named

__all__ = ["RedisQueueMessages"]

# A piece of the delay store; a search must not block the server.
_PIECE: Final = 500


@dataclass(frozen=True, slots=True)
class _Handle:
    """Where a message waits: in the list of that number, or as `member` of the delay store."""

    number: int
    raw: bytes
    member: bytes = b""


class RedisQueueMessages:
    """Implements `QueueMessages` on kombu's lists; `lists` are those of all priority steps.

    A message is known by its bytes, since its place changes whenever a worker takes another one.
    """

    has_delayed = True

    def __init__(self, client: redis.Redis, lists: Sequence[str], store: DelayStore) -> None:
        self._client, self._lists, self._store = client, list(lists), store
        self._remove = Script.of("taskyard.broker", "remove_queued")
        self._seen: dict[str, set[bytes]] = {key: set() for key in self._lists}
        self._cursor: int | None = 0

    def count(self) -> int:
        """Return how many messages the lists hold."""
        with self._client.pipeline(transaction=False) as pipe:
            for key in self._lists:
                pipe.llen(key)
            return sum(self._answered(pipe.execute(raise_on_error=False)))

    def _answered(self, answers: Sequence[Any]) -> Iterator[int]:
        for key, answer in zip(self._lists, answers, strict=True):
            if isinstance(answer, ResponseError):
                raise named(self._client, answer, {key: "list"})
            if isinstance(answer, RedisError):
                raise answer
            yield int(answer)

    def count_delayed(self) -> int:
        """Return how many messages of the delay store go to the lists."""
        return sum(1 for _, entry in self._entries() if self._number_of(entry) is not None)

    def next_messages(self, limit: int) -> Sequence[WaitingMessage]:
        """Return up to `limit` messages that were not returned before, those served next first."""
        for number, key in enumerate(self._lists):
            found = self._unseen(key, limit)
            if found:
                return [_message(raw, _Handle(number + 1, raw)) for raw in found]
        return []

    def _unseen(self, key: str, limit: int) -> list[bytes]:
        """Return messages from the right end of a list, past those that stay there."""
        seen = self._seen[key]
        raws: Any = self._client.lrange(key, -(len(seen) + limit), -1)
        found = [raw for raw in reversed(raws) if raw not in seen][:limit]
        seen.update(found)
        return found

    def next_delayed(self) -> Sequence[WaitingMessage] | None:
        """Return the messages of the next piece of the delay store that go to the lists."""
        if self._cursor is None:
            return None
        piece: Any
        self._cursor, piece = self._client.hscan(
            self._store.messages_key, self._cursor, count=_PIECE
        )
        if self._cursor == 0:
            self._cursor = None
        found = []
        for member, entry in piece.items():
            if self._number_of(entry) is not None:
                raw = entry.partition(b"\n")[2]
                found.append(_message(raw, _Handle(0, entry, member)))
        return found

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._client.hscan_iter(self._store.messages_key, count=_PIECE)

    def _number_of(self, entry: bytes) -> int | None:
        key = entry.partition(b"\n")[0].decode("utf-8", "replace")
        return self._lists.index(key) if key in self._lists else None

    def remove(self, messages: Sequence[WaitingMessage]) -> list[bool]:
        """Remove messages in one step; return for each whether it was still there."""
        if not messages:
            return []
        arguments: list[Argument] = []
        for message in messages:
            handle: _Handle = message.handle
            if handle.number:
                arguments += [handle.number, handle.raw]
                self._seen[self._lists[handle.number - 1]].discard(handle.raw)
            else:
                arguments += ["", handle.member, handle.raw]
        keys = [self._store.due_key, self._store.messages_key, *self._lists]
        return [answer == 1 for answer in self._remove(self._client, keys, arguments)]

    def keep(self, messages: Sequence[WaitingMessage]) -> None:
        """Do nothing: they are where they were."""

    def errors(self) -> tuple[type[Exception], ...]:
        """Return redis-py's base class."""
        return (RedisError,)

    def let_go(self) -> None:
        """Do nothing: a message that is looked at stays in its list."""

    def close(self) -> None:
        """Do nothing: the client belongs to the caller."""


def _message(raw: bytes, handle: _Handle) -> WaitingMessage:
    try:
        document = json.loads(raw)
        headers, properties = document["headers"], document["properties"]
        body = document.get("body") or ""
        encoded = properties.get("body_encoding") == "base64"
        plain = base64.b64decode(body) if encoded else body.encode()
        return WaitingMessage(dict(headers), dict(properties), plain, handle)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return WaitingMessage({}, {}, b"", handle)
