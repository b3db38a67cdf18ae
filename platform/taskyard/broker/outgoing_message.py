"""A message to publish, one of many."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.wire.headers import Stamp
from taskyard.wire.letters import RawMessage

__all__ = ["Outgoing"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The arguments of `Publisher.publish`, or of `publish_later` if there is a `due_us`."""

    message: RawMessage
    queue: str
    priority: int | None
    job_id: str
    stamp: Stamp
    due_us: int | None = None
