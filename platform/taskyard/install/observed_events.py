"""What the main process saw of an observed delivery, as values for the observer's thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from taskyard.jobs.attempt_outcomes import Decision
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["DeadBeforeStart", "Ended", "Observation", "Requeued", "Started", "Watched"]


@dataclass(frozen=True, slots=True)
class Watched:
    """The delivery that an observation is about; `holder` distinguishes two deliveries of a job.

    `job_id` is empty if the message has none; then the message died before it started.
    """

    job_id: str
    holder: str
    job_type: str
    queue: str
    worker: str


@dataclass(frozen=True, slots=True)
class Started:
    """A worker's process took the delivery."""

    delivery: Watched


@dataclass(frozen=True, slots=True)
class Ended:
    """The delivery ended with a decision; `facts` are the arguments of `Records.finish`."""

    delivery: Watched
    decision: Decision
    facts: dict[str, Any] = field(default_factory=dict)
    message: RawMessage | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """The delivery ended without a decision, and its message is back in the queue.

    `lost` says how its process died, if it did.
    """

    delivery: Watched
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class DeadBeforeStart:
    """The message died before it started; `outcome` has the cause.

    `delivered_before` is used for a message without an id, which may already have a dead
    letter.
    """

    delivery: Watched
    outcome: Any
    message: RawMessage
    delivered_before: bool = False


Observation = Started | Ended | Requeued | DeadBeforeStart
