"""Ids from the command line: as arguments, or one per line from standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

__all__ = ["SHORT", "check_utf8", "short", "written"]

SHORT: Final = 8  # enough to distinguish 10,000 random ids, and short enough for a table


def written(arguments: Sequence[str]) -> list[str]:
    """Return the ids in `arguments`; `-` stands for the first word of each line of stdin.

    Raises `typer.BadParameter` if there is none.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            found += [check_utf8(line.split()[0]) for line in sys.stdin if line.strip()]
        else:
            found.append(argument.strip())
    ids = list(dict.fromkeys(name for name in found if name))
    if not ids:
        raise typer.BadParameter(
            "no id was given; expected ids, or - to read one id per line from standard input",
            param_hint="ID...",
        )
    return ids


def check_utf8(word: str) -> str:
    """Return `word`; raises `typer.BadParameter` if it is not UTF-8."""
    if any("\ud800" <= char <= "\udfff" for char in word):
        raise typer.BadParameter(f"expected text in UTF-8, got {word[:60]!r}")
    return word


def short(full: object) -> str:
    """Return the first characters of an id, which tables show and commands accept."""
    text = str(full)
    return text[:SHORT]
