"""Wait without polling: the server notifies a connection when a list that it saw empty is filled.

Redis and Valkey remember which keys a connection has read (`CLIENT TRACKING`, from 6.0) and push
one message when such a key changes. If tracking is refused the caller polls instead.
"""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import ResponseError

from taskyard.wire.logs import logger

__all__ = ["POLL_S", "RECHECK_S", "Wake"]

log = logger(__name__)

# Without tracking: how often an idle consumer polls.
POLL_S: Final = 0.015
# With tracking: how often it polls all the same, to notice a dead connection.
RECHECK_S: Final = 1.0


class Wake:
    """The waiting state of one consuming connection."""

    def __init__(self) -> None:
        self._socket: Any = None
        self.refused = False
        self.waiting = False
        self._again_at = 0.0

    @property
    def interval_s(self) -> float:
        """Return how long an idle consumer waits at most before it asks again."""
        return POLL_S if self.refused else RECHECK_S

    def prepare(self, connection: Any) -> None:
        """Switch tracking on for a new connection."""
        if self._socket is connection._sock and self._socket is not None:
            return
        connection._parser.set_invalidation_push_handler(lambda _: None)
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
            self.refused = False
        except ResponseError as error:
            self.refused = True
            log.warning(
                "Redis refuses key tracking, an idle worker polls every %g s: %s",
                POLL_S,
                error,
                extra={"action": "tracking_refused"},
            )
        self._socket = connection._sock
        self.waiting = False

    def wait(self, now: float, longest_s: float | None = None) -> None:
        """Wait until notified, or until `longest_s` (default `interval_s`) has passed."""
        self.waiting = True
        self._again_at = now + (self.interval_s if longest_s is None else longest_s)

    def overdue(self, now: float) -> bool:
        """Return whether to ask again although no notification came."""
        return self.waiting and now >= self._again_at
