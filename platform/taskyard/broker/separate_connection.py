"""A separate connection to the broker for one purpose, so that no other traffic delays it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from taskyard.broker.confirmed_publish import abandon, disown

__all__ = ["OwnConnection"]


class OwnConnection:
    """A broker connection that is opened when it is first needed, and again after a failure.

    One thread at a time may use it. `connect` creates the connection. `prepare` gets the
    channel of each new connection, to declare what it needs.
    """

    def __init__(self, connect: Callable[[], Connection], prepare: Callable[[Any], None]) -> None:
        self._connect, self._prepare = connect, prepare
        self._connection: Connection | None = None

    @property
    def is_open(self) -> bool:
        """Return whether the connection was opened and not closed by this process since.

        The server may have closed the connection all the same.
        """
        return self._connection is not None

    def producer(self) -> Producer:
        """Return the producer on the connection's channel; raises one of `errors`."""
        return Producer(self._opened().default_channel)

    def channel(self) -> Any:
        """Return a second channel, beside the producer's; raises one of `errors`."""
        return self._opened().channel()

    def refusals(self) -> tuple[type[BaseException], ...]:
        """Return the error classes of a broker that answers, but refuses and closes the channel."""
        return () if self._connection is None else tuple(self._connection.channel_errors)

    def errors(self) -> tuple[type[BaseException], ...]:
        """Return the client's error classes for a broker that is unreachable or refuses."""
        found: tuple[type[BaseException], ...] = (OperationalError, OSError)
        if self._connection is not None:
            found += tuple(self._connection.connection_errors)
            found += tuple(self._connection.channel_errors)
        return found

    def abandon(self) -> None:
        """Drop the connection after a failure, without a message to the server.

        The server may not answer.
        """
        if self._connection is not None:
            abandon(self._connection)
            self._connection = None

    def disown(self) -> None:
        """Drop the connection in the child of a fork, because the parent continues to use it."""
        if self._connection is not None:
            disown(self._connection)
            self._connection = None

    def _opened(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._prepare(self._connection.default_channel)
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None
