"""Ids from the command line: as arguments, or one per line from standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from taskyard.ops.cli.options import check_utf8

__all__ = ["SHORT", "read_ids", "short_id"]

SHORT: Final = 8  # enough to distinguish 10,000 random ids, and short enough for a table


def read_ids(arguments: Sequence[str]) -> list[str]:
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


def short_id(full: object) -> str:
    """Return the first characters of an id, which tables show and commands accept."""
    text = str(full)
    return text[:SHORT]
