"""How many messages a Redis queue serves before the message of one job.

The search is bounded. A message that is further back has a lower limit instead of its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from taskyard.inspection.find_messages import Messages, note_message
from taskyard.inspection.record_fields import Seen
from taskyard.inspection.search_budget import Budget
from taskyard.store import Script

__all__ = ["MOST_SEARCHED", "QueuePlace", "QueueSearch"]

# A piece blocks the server for well under a millisecond.
_PIECE: Final = 200
# What workers take meanwhile moves the other messages forward, past the next piece.
_OVERLAP: Final = 50
MOST_SEARCHED: Final = 20_000
"""How many messages of a queue are searched for one job, those first that are served next."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a message waits in a queue of `waiting` messages, and how many are served before it.

    If `exact` is False it was not found among those that were searched: `ahead` is the least number
    of messages that are served before it, if it is in this queue at all.
    """

    ahead: int
    waiting: int
    exact: bool = True


class QueueSearch:
    """The lists of one queue, in the order in which they are served; raises redis-py's errors.

    Workers serve the lists in this order, but for one message in ten, which comes from the least
    urgent list, so that nothing waits for ever.
    """

    def __init__(self, client: redis.Redis, lists: Sequence[str], budget: Budget) -> None:
        self._client, self._lists, self._budget = client, tuple(lists), budget
        self._find = Script.of("taskyard.broker", "find_queued")
        self._left = MOST_SEARCHED
        self._searched: dict[str, int] = {}

    def find(self, seen: Seen, found: Messages, likely: str = "") -> QueuePlace | None:
        """Return the place of the message that continues the job; None if the queue has none.

        `likely` is the list of the job's priority, which is searched first. What is found of the
        job is added to `found`, messages that are stale too.
        """
        for key in sorted(self._lists, key=lambda key: key != likely):
            for raw in self._messages_of(key, seen.job_id):
                note_message(found, json.loads(raw), key)
                place = self._place(key, raw) if found.waits(seen) else None
                if place is not None:
                    return place
        return self._not_found(likely)

    def _messages_of(self, key: str, job_id: str) -> Iterator[bytes]:
        """Yield the job's messages in a list; others that only name the job are left out."""
        needle, skip = json.dumps(job_id), 0
        while self._left > 0 and self._budget.ask():
            length, *raws = self._find(self._client, [key], [needle, skip, _PIECE])
            self._left -= min(length, _PIECE - _OVERLAP)
            self._searched[key] = skip + length
            yield from (raw for raw in raws if _id_in(raw) == job_id)
            if length < _PIECE:
                return
            skip += _PIECE - _OVERLAP

    def _place(self, key: str, raw: bytes) -> QueuePlace | None:
        """Return the exact place at one moment; None if the message has left the list."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.lpos(key, raw, rank=-1, maxlen=MOST_SEARCHED)  # type: ignore[arg-type]
            index, *lengths = self._lengths(pipe)
        if index is None:
            return None
        of = dict(zip(self._lists, lengths, strict=True))
        # The right end of a list is served next.
        return QueuePlace(self._before(key, of) + of[key] - 1 - index, sum(lengths))

    def _not_found(self, likely: str) -> QueuePlace | None:
        with self._client.pipeline(transaction=True) as pipe:
            lengths = self._lengths(pipe)
        of = dict(zip(self._lists, lengths, strict=True))
        unread = [key for key in self._lists if of[key] > self._searched.get(key, 0)]
        if not unread:
            return None
        at = likely if likely in unread else unread[0]
        ahead = self._before(at, of) + self._searched.get(at, 0)
        return QueuePlace(ahead, sum(lengths), exact=False)

    def _lengths(self, pipe: Any) -> list[Any]:
        for name in self._lists:
            pipe.llen(name)
        answers: list[Any] = pipe.execute()
        return answers

    def _before(self, key: str, lengths: dict[str, int]) -> int:
        """Return how many messages wait in more urgent lists."""
        return sum(lengths[name] for name in self._lists[: self._lists.index(key)])


def _id_in(raw: bytes) -> object:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    headers = document.get("headers") if isinstance(document, dict) else None
    return headers.get("id") if isinstance(headers, dict) else None
