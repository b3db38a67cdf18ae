"""The ports through which the relay uses records, broker, queues and gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from taskyard.broker import Outgoing
from taskyard.errors import PublishFailed, Refused
from taskyard.records import LiveVerbCall, Record, ReplayCall, Stop, StopAnswer, VerbAnswer
from taskyard.settings import Settings
from taskyard.wire import RawMessage, Stamp

__all__ = [
    "GatePort",
    "Opened",
    "Ports",
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

    def many(self, calls: Sequence[LiveVerbCall]) -> Sequence[VerbAnswer | RedisError]:
        """Call verbs on many jobs in one round trip; an error stands for each that failed."""
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

    def replay_many(self, calls: Sequence[ReplayCall]) -> Sequence[Opened | Refused | RedisError]:
        """Open the next generations of many jobs, once for each request, in one round trip."""
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

    def publish_many(self, messages: Sequence[Outgoing]) -> Sequence[PublishFailed | None]:
        """Publish all messages; return an error for each that the broker has not confirmed."""
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


@dataclass(frozen=True, slots=True)
class Ports:
    """What intents are carried out with; without `queues` every queue counts as reachable."""

    settings: Settings
    records: RecordsPort
    publisher: PublisherPort
    queues: QueuesPort | None = None
