"""A separate connection to the broker for one purpose, so that no other traffic delays it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from taskyard.broker.confirmed_publish import abandon, disown

__all__ = ["OwnConnection"]


class OwnConnection:
    """Opened when it is first needed, and again after a failure; one thread at a time may use it.

    `connect` creates it. `prepare` gets the channel of each new connection, to declare what it
    needs.
    """

    def __init__(self, connect: Callable[[], Connection], prepare: Callable[[Any], None]) -> None:
        self._connect, self._prepare = connect, prepare
        self._connection: Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed since.

        The server may have closed it all the same.
        """
        return self._connection is not None

    def producer(self) -> Producer:
        """The producer on the connection's channel; raises one of `errors`."""
        return Producer(self._opened().default_channel)

    def channel(self) -> Any:
        """Return a second channel, beside the producer's; raises one of `errors`."""
        return self._opened().channel()

    def refusals(self) -> tuple[type[BaseException], ...]:
        """Those of `errors` that are answers: the broker is reachable, and closed the channel."""
        return () if self._connection is None else tuple(self._connection.channel_errors)

    def errors(self) -> tuple[type[BaseException], ...]:
        """The client's own errors for a broker that is unreachable or refuses."""
        found: tuple[type[BaseException], ...] = (OperationalError, OSError)
        if self._connection is not None:
            found += tuple(self._connection.connection_errors)
            found += tuple(self._connection.channel_errors)
        return found

    def abandon(self) -> None:
        """Drop it after a failure, without a message to a server that may not answer."""
        if self._connection is not None:
            abandon(self._connection)
            self._connection = None

    def disown(self) -> None:
        """Drop, in the child of a fork, what its parent continues to use."""
        if self._connection is not None:
            disown(self._connection)
            self._connection = None

    def _opened(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._prepare(self._connection.default_channel)
        return self._connection

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None
