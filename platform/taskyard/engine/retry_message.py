"""The message of a retry that differs from its attempt's, stored in the record.

Celery's own `retry()` may change arguments, options and queue; a repeated publication needs them.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from taskyard.records import Record
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["NextMessage"]


class NextMessage(BaseModel):
    """A message and the name of its queue."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    queue: str
    message: RawMessage

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """Parse what the record keeps; None if the next attempt has the same message."""
        kept = record.fields.get("next")
        return cls.model_validate_json(kept) if kept else None

    def encode(self) -> bytes:
        """Return the text that the script `finish` stores."""
        return self.model_dump_json().encode()
