"""One entry of the lifecycle stream: an event of a job, with the job's own version."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from taskyard.clock import from_us
from taskyard.jobs import Event, State
from taskyard.wire.redaction import redact_text

__all__ = ["Entry"]

_NUMBERS: Final = ("priority", "generation", "seq", "attempt", "token", "due")
_TEXTS: Final = (
    "type", "domain", "queue", "worker", "code", "category", "letter", "error", "by", "outcome",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A parsed entry; `detail` holds its optional fields under their names in the stream.

    Error texts are kept without secrets.
    """

    job: str
    epoch: int
    version: int
    event: Event
    state: State
    at: datetime
    detail: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read a stream entry; raises ValueError naming the field that is missing or wrong."""
        texts = {key.decode(): value.decode() for key, value in fields.items()}
        detail: dict[str, str | int] = {
            name: _number(texts, name) for name in _NUMBERS if texts.get(name)
        }
        detail |= {name: texts[name] for name in _TEXTS if texts.get(name)}
        if "error" in detail:
            detail["error"] = redact_text(texts["error"])
        if "letter" in detail:
            uuid.UUID(texts["letter"])
        return cls(
            job=_text(texts, "job"),
            epoch=_number(texts, "epoch"),
            version=_number(texts, "version"),
            event=Event(_text(texts, "event")),
            state=State(_text(texts, "state")),
            at=_time(texts, "at"),
            detail=detail,
        )

    def number(self, name: str) -> int | None:
        """Return an optional field that is a number."""
        value = self.detail.get(name)
        return value if isinstance(value, int) else None

    def text(self, name: str) -> str | None:
        """Return an optional field that is text."""
        value = self.detail.get(name)
        return value if isinstance(value, str) else None


def _text(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name)
    if not value:
        raise ValueError(f"the field {name!r} is missing")
    return value


def _number(fields: Mapping[str, str], name: str) -> int:
    value = _text(fields, name)
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"the field {name!r} must be a whole number, got {value[:60]!r}") from None


def _time(fields: Mapping[str, str], name: str) -> datetime:
    us = _number(fields, name)
    try:
        return from_us(us)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"the field {name!r} must be microseconds since 1970, got {us}") from error
