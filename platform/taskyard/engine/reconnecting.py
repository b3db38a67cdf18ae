"""How a consumer leaves a broken connection, and how long it waits before it connects again."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LONGEST_S", "Reconnecting", "close_in_two_steps"]

_FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0
# A connection that held this long was a good one.
_CALM_S: Final = 10.0


class Reconnecting:
    """At once after a loss, then 0.1 s and twice as long up to 2 s while losses follow each other.

    A server that refuses (read-only, full) accepts every connection: without a wait the worker
    would connect and be refused dozens of times a second.
    """

    def __init__(self) -> None:
        self._lost_at_s = float("-inf")
        self._wait_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long to wait after a loss at `now_s`, in seconds on the monotonic clock."""
        if now_s - self._lost_at_s > _CALM_S:
            self._wait_s = 0.0
        else:
            self._wait_s = min(max(2 * self._wait_s, _FIRST_S), LONGEST_S)
        self._lost_at_s = now_s
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
