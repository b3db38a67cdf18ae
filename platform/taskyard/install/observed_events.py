"""Events of an observed delivery, as values for the observer's thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from taskyard.jobs.attempt_outcomes import Decision
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["DeadBeforeStart", "Ended", "Observation", "Requeued", "Started", "Watched"]


@dataclass(frozen=True, slots=True)
class Watched:
    """The delivery of an event; `holder` distinguishes two deliveries of a job.

    `job_id` is empty if the message has none; then it died before it started.
    """

    job_id: str
    holder: str
    job_type: str
    queue: str
    worker: str


@dataclass(frozen=True, slots=True)
class Started:
    """A worker's process took it."""

    delivery: Watched


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended with a decision: `facts` are the arguments of `Records.finish`."""

    delivery: Watched
    decision: Decision
    facts: dict[str, Any] = field(default_factory=dict)
    message: RawMessage | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """It ended without one and its message is back in the queue; `lost` if its process died."""

    delivery: Watched
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class DeadBeforeStart:
    """It died before it started; `outcome` has the cause.

    `delivered_before` counts for a message without an id: it may have left a letter already.
    """

    delivery: Watched
    outcome: Any
    message: RawMessage
    delivered_before: bool = False


Observation = Started | Ended | Requeued | DeadBeforeStart
