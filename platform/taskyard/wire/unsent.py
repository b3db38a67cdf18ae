"""A first message that the broker has not confirmed yet, as the record keeps it until then."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from taskyard.clock import us_of
from taskyard.wire.letters import RawMessage

__all__ = ["Unsent"]


class Unsent(BaseModel):
    """`countdown_s` counts from the admission; `policy` overrides the type's retry policy.

    Only where broker and records are apart: one script publishes and records elsewhere. It costs
    memory from admission to confirmation, a few milliseconds a job.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    message: RawMessage
    countdown_s: float = 0
    policy: dict[str, Any] | None = None

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote; raises pydantic's `ValidationError`."""
        return cls.model_validate_json(text)

    def encode(self) -> str:
        """The text in the record."""
        return self.model_dump_json()

    def due(self, epoch: int) -> int:
        """When it is to run, microseconds; 0 for now."""
        return epoch + us_of(self.countdown_s) if self.countdown_s > 0 else 0
