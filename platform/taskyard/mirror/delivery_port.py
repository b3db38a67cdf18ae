"""The port through which the mirror takes dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Delivery", "LetterSource"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of the mirror's queue.

    `tag` belongs to the source. `body` is decompressed if the message is a dead letter; a message
    that the broker dropped keeps its bytes. `fault` is why a body could not be decompressed.
    `own_id` identifies a message without an id: no two deliveries share it, so messages with the
    same bytes become one row each. `delivered_before`: the broker has delivered the same message
    before, so a row may exist already.
    """

    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    tag: object = None
    fault: str = ""
    delivered_before: bool = False
    own_id: uuid.UUID = field(default_factory=uuid.uuid4)


class LetterSource(Protocol):
    """A queue of dead letters; it returns a delivery again if the delivery was not acknowledged."""

    def take(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Return up to `limit` deliveries, waiting `wait_s` for the first.

        May raise ServerUnreachable.
        """
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries.

        May raise `ServerUnreachable`; then the deliveries come again.
        """
        ...
