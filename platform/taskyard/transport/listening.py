"""Subscriptions, by which remote control and events come: one that is refused stops no job."""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any, Final

from redis.exceptions import ResponseError

from taskyard.store import is_misplaced
from taskyard.transport.ownership import HoldingChannel

__all__ = ["ListeningChannel"]

_LISTEN: Final = "remote control or events not heard"


class StoringChannel(HoldingChannel):
    """kombu's lists, where a key of another type has a name and every key its prefix."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        try:
            super()._put(queue, message, **kwargs)
        except ResponseError as error:
            step = self._get_message_priority(message, reverse=False)
            self.refuse(error, self._q_for_pri(queue, step))

    def _get_message_priority(self, message: Any, reverse: bool = False) -> int:
        """kombu's, which an infinite priority (JSON's 1e999) would end: it counts as none."""
        try:
            return int(super()._get_message_priority(message, reverse=reverse))
        except OverflowError:
            return int(super()._get_message_priority({}, reverse=reverse))

    def _size(self, queue: str) -> int:
        """How many messages wait; declaring a queue asks, which must not end a worker."""
        what = f"the length of queue {queue!r} not known"
        try:
            size = int(super()._size(queue))
        except ResponseError as error:
            # A key of another type is named by whoever pops from it, or puts something there.
            if not is_misplaced(error):
                self.tolerate(what, error)
            return 0
        self.refusals.worked(what)
        return size

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        """Whether anything waits; kombu's own asks for keys without the prefix."""
        keys = self.full(*self._lists_of(queue))
        return bool(self.plain(self._create_client()).exists(*keys))

    def keep_newest(self, queue: str, limit: int) -> None:
        """Drop all but the `limit` messages that came last, of those without a priority."""
        self.plain(self._create_client()).ltrim(self.full(queue)[0], 0, limit - 1)

    def _lists_of(self, queue: str) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps]


class ListeningChannel(StoringChannel):
    """Subscribes again after a refusal, when its wait is over."""

    _listen_again_at: float | None = None

    def _receive(self) -> Any:
        try:
            return super()._receive()
        except ResponseError as error:
            # `_in_listen` stays: kombu would subscribe with the next tick.
            self._listen_again_at = monotonic() + self.tolerate(_LISTEN, error)
            raise Empty from error

    def _handle_message(self, client: Any, r: Any) -> Any:
        if r[0] in (b"psubscribe", "psubscribe"):
            self.refusals.worked(_LISTEN)
        return super()._handle_message(client, r)

    def listen_if_due(self) -> None:
        """Let the next tick subscribe, where the wait after a refusal is over."""
        if self._listen_again_at is not None and monotonic() >= self._listen_again_at:
            self._listen_again_at = None
            self._in_listen = None
