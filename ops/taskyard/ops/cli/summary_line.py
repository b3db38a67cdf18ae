"""Shorten an error text of many lines to one line."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "summary_line"]

# How much of a long text a list shows; `show` prints all of it.
LONGEST: Final = 200
_TRACE: Final = "Traceback (most recent call last):"


def summary_line(text: str) -> str:
    """Return `text` as one line; a text of one line is returned whole.

    Of a Python traceback only the last exception and its message are kept. The lines of any other
    text are joined, because its first line may only introduce the next ("1 validation error for
    Order"). A joined line is cut after 200 characters.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) <= 1:
        return text.strip()
    return _cut(" ".join(" ".join(_exception(lines) or lines).split()))


def _exception(lines: list[str]) -> list[str]:
    """Return the last exception of a traceback with its message, empty if there is none.

    Frames are indented, and a chain ends with the exception that was not caught.
    """
    heads = [at for at, line in enumerate(lines) if line.strip() == _TRACE]
    if not heads:
        return []
    below = lines[heads[-1] + 1 :]
    margin = lines[heads[-1]].partition(_TRACE)[0]
    for at, line in enumerate(below):
        if not line.removeprefix(margin).startswith(" "):
            return below[at:]
    return []


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
