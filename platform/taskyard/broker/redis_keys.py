"""Name the keys of a Redis transport, from `broker_transport_options` as kombu reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from taskyard.queues import URGENCY_STEPS

__all__ = ["PLAIN", "Layout"]

_SEPARATOR: Final = "\x06\x16"


@dataclass(frozen=True, slots=True)
class Layout:
    """The Redis keys of a queue, with kombu's names by default.

    The key of priority step 0 has the queue's name without a suffix.
    """

    prefix: str = ""
    separator: str = _SEPARATOR
    steps: tuple[int, ...] = URGENCY_STEPS
    unacked: str = "unacked"
    index: str = "unacked_index"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Read `broker_transport_options`, ours or an app's."""
        return cls(
            prefix=str(options.get("global_keyprefix") or ""),
            separator=str(options.get("sep") or _SEPARATOR),
            steps=tuple(int(step) for step in options.get("priority_steps") or URGENCY_STEPS),
            unacked=str(options.get("unacked_key") or "unacked"),
            index=str(options.get("unacked_index_key") or "unacked_index"),
        )

    def step(self, priority: int) -> int:
        """Return the priority step at Redis for a message of this priority."""
        return max((step for step in self.steps if step <= priority), default=self.steps[0])

    def key(self, queue: str, step: int) -> str:
        """Return the list that holds a queue's messages of one priority step."""
        return f"{self.prefix}{queue}{self.separator}{step}" if step else f"{self.prefix}{queue}"

    def keys(self, queue: str) -> list[str]:
        """Return all lists of a queue."""
        return [self.key(queue, step) for step in self.steps]

    @property
    def unacked_key(self) -> str:
        """Return the name of the hash that holds unacknowledged messages."""
        return self.prefix + self.unacked

    @property
    def index_key(self) -> str:
        """Return the name of the sorted set with the times at which messages were taken."""
        return self.prefix + self.index


PLAIN: Final = Layout()
