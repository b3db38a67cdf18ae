"""The port through which the mirror takes dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Delivery", "LetterSource"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of the mirror's queue; `tag` belongs to the source.

    The `body` of a letter is decompressed; a message that the broker dropped keeps its bytes.
    `fault` is why a body could not be decompressed. `own_id` identifies a message without an id of
    its own: no two deliveries share it, so equal bytes become as many rows as there were messages.
    `delivered_before`: the broker has delivered the same message before, so a row may exist
    already.
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
        """Return up to `limit` deliveries, waiting `wait_s` for the first.

        May raise ServerUnreachable.
        """
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge them; may raise ServerUnreachable, after which they come again."""
        ...
