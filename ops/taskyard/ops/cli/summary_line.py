"""What an error of many lines says, in one."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "summary_line"]

# As much of a text of many lines as a list shows; `show` has the whole.
LONGEST: Final = 200
_TRACE: Final = "Traceback (most recent call last):"


def summary_line(text: str) -> str:
    """One line that carries the meaning of `text`; what is one line already stays as it is.

    Of a Python traceback that is the exception, which stands below its frames. Elsewhere the first
    words may only lead to the others ("1 validation error for Order"), so the lines are joined and
    the end is cut.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) <= 1:
        return text.strip()
    return _cut(" ".join(" ".join(_exception(lines) or lines).split()))


def _exception(lines: list[str]) -> list[str]:
    """The last exception of a traceback and what belongs to its message, empty without one.

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
