"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from taskyard.errors import InvalidPayload

__all__ = ["Json", "duration", "moment_of"]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _remember(context: typer.Context, value: bool) -> bool:
    context.obj.json = value
    return value


Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document instead of text.", callback=_remember),
]


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `2h`, `7d` or `1w`; raises `InvalidPayload`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    if found is None:
        raise InvalidPayload(f"expected a duration such as 90s, 15m, 2h, 7d or 1w, got {text!r}")
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


def moment_of(text: str | None, now: datetime) -> datetime | None:
    """A moment: so long ago (`2h`), or ISO 8601 (UTC where it names no zone)."""
    if text is None:
        return None
    if re.fullmatch(r"\d+[a-zA-Z]", text.strip()):
        return now - duration(text)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidPayload(
            f"--since takes a duration such as 2h or a time such as 2025-06-01T08:00, got {text!r}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
