"""Options that several commands share."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

__all__ = ["MOST_ROWS", "Json", "Limit", "check_utf8", "duration", "moment_of", "wait_seconds"]

# As many as a person reads, and the limit of the queries that fetch them.
MOST_ROWS: Final = 1000
_SINCE: Final = "--since"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _remember(context: typer.Context, value: bool) -> bool:
    context.obj.json = value
    return value


Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document instead of text.", callback=_remember),
]


def _few(rows: int) -> int:
    if not 1 <= rows <= MOST_ROWS:
        raise typer.BadParameter(f"expected 1 to {MOST_ROWS}, got {rows}")
    return rows


Limit = Annotated[
    int, typer.Option(help=f"At most so many rows, up to {MOST_ROWS}.", callback=_few)
]


def check_utf8(word: str) -> str:
    """Return `word`; raises `typer.BadParameter` if it is not UTF-8."""
    if any("\ud800" <= char <= "\udfff" for char in word):
        raise typer.BadParameter(f"expected text in UTF-8, got {word[:60]!r}")
    return word


def wait_seconds(seconds: float) -> float:
    """Parse a time to wait; raises `typer.BadParameter` unless it is finite and not negative."""
    if not 0 <= seconds < math.inf:
        raise typer.BadParameter(f"expected 0 seconds or more, got {seconds:g}")
    return seconds


def duration(text: str, option: str = _SINCE) -> timedelta:
    """Parse `90s`, `15m`, `2h`, `7d` or `1w`.

    Raises `typer.BadParameter`, which names the option.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    if found is None:
        raise typer.BadParameter(
            f"expected a duration such as 90s, 15m, 2h, 7d or 1w, got {text!r}", param_hint=option
        )
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


def _ago(past: timedelta, now: datetime) -> datetime:
    try:
        return now - past
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)  # before the year 1: then no time is too early


def moment_of(text: str | None, now: datetime) -> datetime | None:
    """Parse a moment: a time ago (`2h`), or ISO 8601 (UTC if it names no zone).

    Raises `typer.BadParameter`.
    """
    if text is None:
        return None
    if re.fullmatch(r"\d+[a-zA-Z]", text.strip()):
        return _ago(duration(text), now)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"expected a duration such as 2h or a time such as 2025-06-01T08:00, got {text!r}",
            param_hint=_SINCE,
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
