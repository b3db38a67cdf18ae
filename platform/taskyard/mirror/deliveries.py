"""What the mirror asks of whoever hands it dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Delivery", "LetterSource"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of the mirror's queue; `tag` is the source's own.

    A letter's `body` is unpacked, what the broker dropped has the bytes that came. `fault` is why a
    body could not be unpacked. `own_id` is for what has no id of its own: no two deliveries share
    it, so that equal bytes are as many rows as there were messages. `delivered_before`: the broker
    has handed the same message out before, which may have left a row already.
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
    """A queue of dead letters; a delivery that is not acknowledged comes again."""

    def take(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Up to `limit` deliveries, waiting `wait_s` for the first; may raise ServerUnreachable."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Settle them; may raise ServerUnreachable, after which they come again."""
        ...
