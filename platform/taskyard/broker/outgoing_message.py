"""One message to publish, as an element of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["Outgoing"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish: the arguments of `Publisher.publish`.

    With a `due_us`, they are those of `publish_later`, which clears `eta` and nothing else.
    """

    message: RawMessage
    queue: str
    priority: int | None
    job_id: str
    stamp: Stamp
    due_us: int | None = None
    strip: tuple[str, ...] = ()
