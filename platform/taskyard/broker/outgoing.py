"""A message on its way to the broker, among others."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.wire.headers import Stamp
from taskyard.wire.letters import RawMessage

__all__ = ["Outgoing"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What `Publisher.publish` takes, or `publish_later` where there is a `due_us`."""

    message: RawMessage
    queue: str
    priority: int | None
    job_id: str
    stamp: Stamp
    due_us: int | None = None
