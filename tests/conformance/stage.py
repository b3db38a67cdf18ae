"""What every way of running jobs must let a test do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from conformance.handlers import Diary
from taskyard.client import JobHandle, Taskyard
from taskyard.wire.letter_envelope import AttemptNote

__all__ = ["Seen", "Stage", "waits_between"]


def waits_between(attempts: Sequence[AttemptNote]) -> list[float]:
    """Seconds from the end of each attempt to the start of the next."""
    return [
        (after.started_us - before.ended_us) / 1_000_000 for before, after in pairwise(attempts)
    ]


@dataclass(frozen=True)
class Seen:
    """One dead letter, as an operator sees it."""

    letter_id: str
    job_id: str
    generation: int
    job_type: str
    domain: str | None
    queue: str
    priority: int | None
    category: str
    code: str
    error_class: str
    message: str
    traceback: str
    args: list[Any] | None
    body: bytes
    outcomes: list[str]
    waits_s: list[float]
    evidence: dict[str, Any]
    eligible: bool
    status: str


class Stage(Protocol):
    """A client, a worker that serves what it enqueues, and an operator."""

    name: str
    diary: Diary

    @property
    def client(self) -> Taskyard:
        """The client under test."""
        ...

    def act(self, do: str = "return", job_type: str = "steady", **options: Any) -> JobHandle:
        """Enqueue one act; the fields of `Act` go into its payload, the rest to `enqueue`."""
        ...

    def settle(self, *jobs: JobHandle | str) -> None:
        """Serve until nothing but an operator could move these jobs, whatever they wait for."""
        ...

    def holding(self) -> AbstractContextManager[None]:
        """Nothing that is enqueued inside is served before the end of the block."""
        ...

    def letters(self, job: JobHandle | str) -> list[Seen]:
        """The dead letters of a job, oldest first."""
        ...

    def replay(self, letter: Seen, **options: Any) -> None:
        """Replay it as an operator; raises `Refused`."""
        ...

    def redeliver(self, job: JobHandle, *, first: bool = False) -> None:
        """Have the job's last message, or its very first, delivered once more, and served."""
        ...

    def send_unknown(self, job_type: str) -> str:
        """Put a message into the queue `exec` that no handler is registered for; its job's id."""
        ...

    def event_names(self, job: JobHandle | str) -> list[str]:
        """The events of a job, in order."""
        ...

    def need_canvas(self) -> None:
        """Skip the test, with the reason, where Celery's canvas cannot run."""
        ...
