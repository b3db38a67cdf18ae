"""A first message that the record keeps until the broker confirms the publication."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from taskyard.clock import us_of
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["Unsent"]


class Unsent(BaseModel):
    """The fields of a first message that the broker has not confirmed.

    `countdown_s` counts from the admission; `policy` overrides the type's policy. This class is
    used only if broker and records are different servers: otherwise one script publishes and
    records. The copy uses memory from admission to confirmation, a few milliseconds per job.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    message: RawMessage
    countdown_s: float = 0
    policy: dict[str, Any] | None = None

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the message in a text that `encode` made; raises pydantic's `ValidationError`."""
        return cls.model_validate_json(text)

    def encode(self) -> str:
        """Return the text for the record."""
        return self.model_dump_json()

    def due(self, epoch: int) -> int:
        """Return when the message must run, in microseconds; 0 for now."""
        return epoch + us_of(self.countdown_s) if self.countdown_s > 0 else 0
