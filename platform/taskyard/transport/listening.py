"""Subscriptions, by which remote control and events come: one that is refused stops no job."""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any, Final

from redis.exceptions import ResponseError

from taskyard.transport.storing import StoringChannel

__all__ = ["ListeningChannel"]

_LISTEN: Final = "remote control or events not heard"


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
