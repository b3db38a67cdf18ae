"""What a letter box asks of a broker."""

from __future__ import annotations

from typing import Any, Final, Protocol

from kombu import Producer

from taskyard.wire.letters import Letter

__all__ = ["JSON", "REVIEW_LIMIT", "Post"]

# A review queue without a reader must not fill the broker; Postgres has all letters.
REVIEW_LIMIT: Final = 10_000
JSON: Final = {"content_type": "application/json", "content_encoding": "utf-8"}


class Post(Protocol):
    """One broker's way to take a letter for certain."""

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue on the channel of a connection that was just opened."""
        ...

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish to the exchange and, escalated, to the review queue.

        Returns when at least one queue has the letter; raises `Unroutable` if none takes it,
        or what the broker's client raises.
        """
        ...
