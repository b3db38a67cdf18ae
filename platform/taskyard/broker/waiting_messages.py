"""The messages that wait in one queue of either broker: count them, look at them, remove some.

What a worker has taken is not there. A message stays in its queue until it is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["QueueMessages", "WaitingMessage"]


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits; without headers if it cannot be read.

    `body` is as it came, compressed if a header says so. `handle` names the message for the broker.
    """

    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    body: bytes
    handle: Any = field(repr=False)


class QueueMessages(Protocol):
    """Everything that waits in one queue; each method raises the broker's errors."""

    @property
    def has_delayed(self) -> bool:
        """Whether messages that wait for their time can be looked at."""
        ...

    def count(self) -> int:
        """Return how many messages wait in the queue, of all priorities."""
        ...

    def count_delayed(self) -> int:
        """Return how many messages wait for their time, to be put into this queue then."""
        ...

    def next_messages(self, limit: int) -> Sequence[WaitingMessage]:
        """Return up to `limit` messages that were not returned before, those served next first."""
        ...

    def next_delayed(self) -> Sequence[WaitingMessage] | None:
        """Return some messages that wait for their time; None when all were returned."""
        ...

    def remove(self, messages: Sequence[WaitingMessage]) -> list[bool]:
        """Remove messages; return for each whether it was still there."""
        ...

    def keep(self, messages: Sequence[WaitingMessage]) -> None:
        """Note that messages stay; raises `Refused` if the broker might drop one of them."""
        ...

    def errors(self) -> tuple[type[Exception], ...]:
        """Return the error classes for a broker that does not answer or refuses."""
        ...

    def let_go(self) -> None:
        """Let go of what was looked at and not removed: it is where it was."""
        ...

    def close(self) -> None:
        """Let go of everything, and close what was opened."""
        ...
