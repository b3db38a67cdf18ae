"""The message of a retry that differs from its attempt's, as the record keeps it.

Celery's own `retry()` may change arguments, options and queue; a repeated publication needs them.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from taskyard.records import Record
from taskyard.wire.letters import RawMessage

__all__ = ["NextMessage"]


class NextMessage(BaseModel):
    """A message and the name of the queue that it goes to."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    queue: str
    message: RawMessage

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """What the record keeps; None where the next attempt has the same message."""
        kept = record.fields.get("next")
        return cls.model_validate_json(kept) if kept else None

    def encode(self) -> bytes:
        """As the script `finish` stores it."""
        return self.model_dump_json().encode()
