"""Wait for messages without polling.

Redis notifies a connection when a list is filled that the connection found empty. Redis and Valkey
remember which keys a connection has read (`CLIENT TRACKING`, from 6.0) and send one message when
such a key changes. If Redis refuses tracking, the caller polls instead.
"""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import ResponseError

from taskyard.wire.redacted_logs import logger

__all__ = ["POLL_S", "RECHECK_S", "Wake"]

log = logger(__name__)

# Without tracking: how often an idle consumer polls.
POLL_S: Final = 0.015
# With tracking: how often it polls all the same, to notice a dead connection.
RECHECK_S: Final = 1.0


class Wake:
    """Whether one consuming connection waits for messages, and since when."""

    def __init__(self) -> None:
        self._socket: Any = None
        self.refused = False
        self.waiting = False
        self._again_at = 0.0

    @property
    def interval_s(self) -> float:
        """Return how many seconds an idle consumer waits at most before it asks again."""
        return POLL_S if self.refused else RECHECK_S

    def prepare(self, connection: Any) -> None:
        """Switch key tracking on for a new connection."""
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
                "Redis refuses key tracking (CLIENT TRACKING), so this worker asks for "
                "messages every %g s while it is idle: %s",
                POLL_S,
                error,
                extra={"action": "tracking_refused"},
            )
        self._socket = connection._sock
        self.waiting = False

    def wait(self, now: float, longest_s: float | None = None) -> None:
        """Wait until Redis notifies, or until `longest_s` (default `interval_s`) has passed."""
        self.waiting = True
        self._again_at = now + (self.interval_s if longest_s is None else longest_s)

    def end_soon(self) -> None:
        """Make the wait overdue. The next tick then ends it and asks for messages in one step.

        Between the two a notice could be taken for an answer.
        """
        self._again_at = 0.0

    def overdue(self, now: float) -> bool:
        """Return whether to ask for messages although Redis sent no notice."""
        return self.waiting and now >= self._again_at
