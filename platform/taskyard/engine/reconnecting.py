"""How a consumer leaves a broken connection, and how long it waits before it connects again."""

from __future__ import annotations

from typing import Any, Final

from amqp.exceptions import AccessRefused
from redis.exceptions import ResponseError

from taskyard.store import is_of_replica
from taskyard.wire.logs import logger
from taskyard.wire.refusals import Refusals

__all__ = ["CALM_S", "LONGEST_S", "Reconnecting", "close_in_two_steps"]

log = logger(__name__)

_FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0
# A connection that held this long was a good one.
CALM_S: Final = 10.0
_REFUSED: Final = "the broker refuses what a worker needs to consume"


class Reconnecting:
    """At once after a loss, then 0.1 s and twice as long up to 2 s while losses follow each other.

    A server that went read-only accepts every connection: without a wait the worker would connect
    and be refused dozens of times a second. What another connection cannot mend, a permission, has
    the longer waits of `refusals`.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._lost_at_s = float("-inf")
        self._wait_s = 0.0
        self.losses = 0

    def note_calm(self, losses: int) -> None:
        """Some time after a connection was made: it is a good one if none was lost since."""
        if losses == self.losses:
            self._refusals.worked(_REFUSED)

    def wait_s(self, now_s: float, error: BaseException) -> float:
        """How long to wait after a loss at `now_s`, in seconds on the monotonic clock."""
        self.losses += 1
        calm = now_s - self._lost_at_s > CALM_S
        self._lost_at_s = now_s
        if isinstance(error, ResponseError | AccessRefused) and not is_of_replica(error):
            return self._refusals.refused(_REFUSED, error, action="broker_refuses")
        self._wait_s = 0.0 if calm else min(max(2 * self._wait_s, _FIRST_S), LONGEST_S)
        if self._wait_s:
            log.warning(
                "the broker is lost again, connecting in %.1f s: %s",
                self._wait_s,
                error,
                extra={"action": "reconnect_waits", "wait_s": self._wait_s},
            )
        return self._wait_s


def close_in_two_steps(connection: Any) -> None:
    """Have `connection` close a channel again where the first attempt has left it half closed.

    kombu's own Redis channel waits for the answer of its last pop before it closes. Where that does
    not come, kombu ignores the error and forgets the server's address; the next close then raises
    an AttributeError, which ends the worker. The second attempt has no pop to wait for.
    """
    close = connection.maybe_close_channel

    def close_whole(channel: Any) -> None:
        close(channel)
        if not getattr(channel, "closed", True):
            close(channel)

    connection.maybe_close_channel = close_whole
