"""Store the message of a retry in the record, if it differs from the message of its attempt.

Celery's own `retry()` may change arguments, options and queue. A repeated publication needs the
changed message.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from taskyard.records import Record
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["NextMessage"]


class NextMessage(BaseModel):
    """The message of a retry, and the name of its queue."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    queue: str
    message: RawMessage

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """Parse the retry message in a record; None if the next attempt has the same message."""
        kept = record.fields.get("next")
        return cls.model_validate_json(kept) if kept else None

    def encode(self) -> bytes:
        """Return the message as the text that the script `finish` stores."""
        return self.model_dump_json().encode()
