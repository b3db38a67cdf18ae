"""What a purge did, in numbers.

It imports nothing of Celery, for which every command would wait.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Drop", "Keep", "PurgeCounts", "PurgeOutcome", "Waiting"]


class Drop(StrEnum):
    """Why a message leaves its queue without a job to cancel."""

    ENDED = "ended"
    """Its job has ended, or is a dead letter that Postgres has."""
    STALE = "stale"
    """Its job has gone on with a later message."""
    NO_JOB = "no_job"
    """It cannot be read, has no id, or has the id of a job of another type."""


class Keep(StrEnum):
    """Why a message stays in its queue."""

    LATER = "later"
    """It was published after the purge began."""
    MOVED = "moved"
    """An operator has moved its job to another queue; the worker that takes it forwards it."""
    CONTINUES = "continues"
    """Its job is completed, and the worker that takes it publishes what follows."""
    LETTER = "letter"
    """Its job is a dead letter that Postgres does not have; a worker publishes that."""
    OUTSIDE = "outside"
    """The record says that its job is in a queue outside the operator's bounds."""
    UNREADABLE = "unreadable"
    """The record of its job cannot be read."""
    CHANGED = "changed"
    """Its job changed between the look at it and the cancel."""


@dataclass(slots=True)
class PurgeCounts:
    """What a purge has done so far, in messages and jobs.

    `cancelled` are jobs; of these `left` have more to come from a relay, such as a reply to their
    service, and the messages of `not_removed` wait at RabbitMQ for their time. `asked` are jobs
    whose attempt runs and was asked to stop. `removed` are messages that left the queue; of these
    `dropped` had no job to cancel. `taken` were taken by a worker, or by another purge, at the same
    moment. `kept` are messages that stay.
    """

    looked_at: int = 0
    cancelled: int = 0
    left: int = 0
    asked: int = 0
    removed: int = 0
    taken: int = 0
    not_removed: int = 0
    dropped: Counter[Drop] = field(default_factory=Counter)
    kept: Counter[Keep] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """Return the counts for JSON and for the audit log."""
        return {
            "cancelled": self.cancelled,
            "left": self.left,
            "asked": self.asked,
            "removed": self.removed,
            "taken": self.taken,
            "not_removed": self.not_removed,
            "dropped": {reason.value: self.dropped[reason] for reason in Drop},
            "kept": {reason.value: self.kept[reason] for reason in Keep},
        }


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many messages wait in a queue; `delayed` is None where they cannot be counted."""

    queue: str
    messages: int
    delayed: int | None


@dataclass(frozen=True, slots=True)
class PurgeOutcome:
    """What a purge did; `waiting` were in the queue when it began, `remaining` are there now.

    Of the `remaining` those beyond `counts.kept` came while the purge worked. The audit rows of
    each job name `request_id` as their `purge`.
    """

    request_id: uuid.UUID
    queue: str
    waiting: int
    remaining: int
    counts: PurgeCounts

    def document(self) -> dict[str, Any]:
        """Return the outcome for JSON."""
        return {
            "queue": self.queue,
            "request_id": str(self.request_id),
            "waiting": self.waiting,
            "remaining": self.remaining,
            **self.counts.document(),
        }
