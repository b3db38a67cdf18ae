"""What the relay asks of records and broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sqlalchemy import Connection, Engine

from taskyard.wire import RawMessage, Stamp

__all__ = ["GatePort", "Opened", "PublisherPort", "QueuesPort", "RecordsPort"]


class Opened(Protocol):
    """A generation that is open, by this request now or before."""

    @property
    def generation(self) -> int:
        """The generation of the message to publish."""
        ...

    @property
    def seq(self) -> int:
        """Its count of retries: 0."""
        ...

    @property
    def now_us(self) -> int:
        """Redis's time, microseconds."""
        ...


class RecordsPort(Protocol):
    """The jobs' records."""

    def replay(
        self,
        *,
        job_id: str,
        epoch: int,
        generation: int,
        request_id: str,
        job_type: str,
        queue: str,
        priority: int | None,
    ) -> Opened:
        """Open the generation after `generation`, once a request; raises `Refused`."""
        ...


class PublisherPort(Protocol):
    """The broker."""

    def publish(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> None:
        """Publish with confirmation; raises `PublishFailed`."""
        ...


class QueuesPort(Protocol):
    """Where queues are that the settings do not name."""

    def check(self, queue: str) -> None:
        """Raise where a message to `queue` would arrive where no worker reads it.

        `Refused` where an operator must act, `PublishFailed` where waiting may help.
        """
        ...


class GatePort(Protocol):
    """What is closed after a restore."""

    def check(self, connection: Connection) -> None:
        """Raise `GateClosed` unless Redis and Postgres agree."""
        ...

    def beat(self, engine: Engine) -> None:
        """Keep both stores' marks going; raises `GateClosed`."""
        ...
