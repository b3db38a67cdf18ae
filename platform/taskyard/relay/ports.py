"""The ports through which the relay uses records, broker, queues and gate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sqlalchemy import Connection, Engine

from taskyard.records import (
    CancelRequested,
    Record,
    Stop,
    StopAnswer,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)
from taskyard.wire import RawMessage, Stamp

__all__ = [
    "GatePort",
    "Opened",
    "PublisherPort",
    "QueuesPort",
    "RecordsPort",
    "StopsPort",
    "VerbsPort",
]


class Opened(Protocol):
    """A generation that this request has opened, now or in an earlier call."""

    @property
    def generation(self) -> int:
        """The generation of the message to publish."""
        ...

    @property
    def seq(self) -> int:
        """The retry counter of the new message: 0."""
        ...

    @property
    def now_us(self) -> int:
        """Redis's time in microseconds."""
        ...


class VerbsPort(Protocol):
    """The verbs on live jobs; each gives a repeated request its first answer."""

    def cancel(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | CancelRequested | VerbRefused:
        """Cancel a job now, or ask its running attempt to stop."""
        ...

    def abort(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | VerbRefused:
        """Abort a job now."""
        ...

    def force_complete(
        self, target: VerbTarget, request_id: str, operator: str, result: bytes
    ) -> VerbApplied | VerbRefused:
        """Complete a job now with Celery's encoded result."""
        ...

    def reroute(
        self, target: VerbTarget, request_id: str, operator: str, to_queue: str
    ) -> VerbApplied | VerbRefused:
        """Move a job to another queue."""
        ...


class StopsPort(Protocol):
    """Requests to workers to stop an attempt, and their answers."""

    def ask(self, worker: str, stop: Stop) -> None:
        """Ask a worker to stop an attempt."""
        ...

    def answer_to(self, request_id: str) -> StopAnswer | None:
        """Return the worker's answer; None if there is none yet."""
        ...

    def worker_lives(self, worker: str, began_us: int) -> bool:
        """Return whether the worker that began an attempt at that time still lives."""
        ...


class RecordsPort(Protocol):
    """The jobs' records."""

    @property
    def verbs(self) -> VerbsPort:
        """The verbs on live jobs."""
        ...

    @property
    def stops(self) -> StopsPort:
        """Requests to stop attempts."""
        ...

    def read(self, job_id: str) -> Record:
        """Return the record; state `none` if there is none."""
        ...

    def requeued(self, job_id: str, epoch: int, generation: int) -> bool:
        """Note that the message of a rerouted job is in its new queue."""
        ...

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
        """Open the generation after `generation`, once for each request; raises `Refused`."""
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

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Publish a reply to the service of a job, with confirmation, to the broker's `queue`.

        Raises `Unroutable` if there is no such queue, and `PublishFailed`.
        """
        ...


class QueuesPort(Protocol):
    """Finds queues that the settings do not name."""

    def fetch(
        self,
        job_id: str,
        *,
        old: str,
        new: str,
        first: tuple[int, int, int],
        stamp: Stamp,
        priority: int | None,
    ) -> bool:
        """Move a waiting message from queue `old` to `new`, if a short search finds it."""
        ...

    def is_announced(self, queue: str) -> bool:
        """Return whether a worker of an installed app reads the queue."""
        ...

    def check(self, queue: str) -> None:
        """Raise if no worker would read a message to `queue`.

        `Refused` if an operator must act, `PublishFailed` if waiting may help.
        """
        ...


class GatePort(Protocol):
    """The gate that closes after a restore."""

    def check(self, connection: Connection) -> None:
        """Raise `GateClosed` unless Redis and Postgres agree."""
        ...

    def beat(self, engine: Engine) -> None:
        """Advance the mark in both stores; raises `GateClosed`."""
        ...
