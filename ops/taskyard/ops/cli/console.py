"""Output for people and scripts: text and tables for people, one JSON document for scripts.

Text from jobs is never trusted: it may contain Rich's markup or a terminal's escape sequences.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NoReturn
from uuid import UUID

from rich.cells import cell_len
from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from taskyard.ops.cli.standard_streams import leave
from taskyard.ops.cli.visible_text import clean, json_text, one_line
from taskyard.wire.redaction import redact_text

__all__ = [
    "Command",
    "err",
    "note",
    "out",
    "print_error",
    "print_json",
    "print_sentence",
    "put",
    "put_facts",
    "say",
    "table",
    "with_priority",
    "with_sentences",
]

_WIDE: Final = 10_000  # a program that reads the output needs whole lines
_INDENT: Final = 2
_LEAST: Final = 20
# A sentence, and the command at its end.
_COMMAND: Final = re.compile(r" (?=(?:See|Run): )")
# Columns of a terminal; if it is narrower, sentences beside a table are unreadable.
_ROOMY: Final = 120


class _Console(Console):
    """Rich's console; a reader that closes the pipe early (`| head`) is not an error."""

    def on_broken_pipe(self) -> NoReturn:
        """Exit without output."""
        leave()


def out() -> Console:
    """Return the console for standard output."""
    width = None if sys.stdout.isatty() else _WIDE
    return _Console(width=width, highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Return the console for standard error, for everything that is not the answer."""
    width = None if sys.stderr.isatty() else _WIDE
    return _Console(stderr=True, width=width, highlight=False, markup=False, emoji=False)


def say(text: str, style: str = "") -> None:
    """Print a line of the answer; the terminal wraps long lines, so they can be copied whole."""
    out().print(clean(text), style=style, soft_wrap=True)


def put(thing: RenderableType) -> None:
    """Print a table or a grid; in a pipe or file, without the spaces at the ends of lines."""
    console = out()
    if console.is_terminal:
        console.print(thing)
        return
    with console.capture() as captured:
        console.print(thing)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    console.print("\n".join(lines), soft_wrap=True)


def note(text: str) -> None:
    """Print a line that is not part of the answer."""
    _print_sentence(err(), Text(clean(text), style="dim"), _INDENT)


def print_error(text: str) -> None:
    """Print an error in red."""
    _print_sentence(err(), Text(clean(redact_text(f"error: {text}")), style="red"), _INDENT)


def print_sentence(text: Text, indent: int = _INDENT) -> None:
    """Print a sentence of the answer in styled parts; at a terminal its next lines are indented."""
    _print_sentence(out(), text, indent)


def _print_sentence(console: Console, text: Text, indent: int) -> None:
    """Print the sentence; at a terminal break lines between words and indent all but the first.

    The command at the end gets a line of its own, which the terminal wraps: it can be copied whole.
    """
    for line in text.split("\n", allow_blank=True):
        if not console.is_terminal or cell_len(line.plain) <= console.width:
            console.print(line, soft_wrap=True)
            continue
        margin = " " * (len(line) - len(line.plain.lstrip()) + indent)
        for number, part in enumerate(_parts(console, line, len(margin))):
            console.print(Text.assemble(margin, part) if number else part, soft_wrap=True)


def _parts(console: Console, line: Text, margin: int) -> Iterator[Text]:
    """Break the line between words so that it fits beside the margin; the command stays whole."""
    command = _COMMAND.search(line.plain)
    said, rest = line, None
    if command is not None:
        said, rest = line[: command.start()], line[command.end() :]
    head, body = said[:margin], said[margin:]
    body.overflow = "ignore"  # a word that is longer than the line, such as a URL, is not broken
    first, *others = body.wrap(console, max(console.width - margin, _LEAST))
    yield head + first
    yield from others
    if rest is not None:
        yield rest


def print_json(document: object) -> None:
    """Print the whole answer as one JSON document."""
    try:
        sys.stdout.write(json_text(document, _plain) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        leave()


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    *,
    folded: int = 1,
) -> Table:
    """Return a table with one line per row, whose last `folded` columns use the remaining width.

    A None is an empty cell. The first column holds what the next command needs: it is never cut.
    """
    made = Table(title=title or None, box=None, pad_edge=False, title_justify="left")
    whole = max((len(str(row[0])) for row in rows), default=0)
    kept = len(columns) - folded
    for index, name in enumerate(columns):
        least = max(whole, len(name)) if index == 0 else None
        overflow: OverflowMethod = "ellipsis" if index < kept else "fold"
        made.add_column(name, no_wrap=index < kept, min_width=least, overflow=overflow)
    for row in rows:
        made.add_row(
            *(_line(value) for value in row[:kept]), *(_cell(value) for value in row[kept:])
        )
    return made


def with_sentences(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> RenderableType:
    """Return a table whose last column is a sentence; at a narrow terminal it gets its own line."""
    console = out()
    if not console.is_terminal or console.width >= _ROOMY:
        return table(columns, rows)
    with console.capture() as captured:
        console.print(table(columns[:-1], [row[:-1] for row in rows], folded=0))
    head, *lines = captured.get().splitlines()
    parts: list[RenderableType] = [Text.from_ansi(head)]
    for line, row in zip(lines, rows, strict=True):
        parts.append(Text.from_ansi(line))
        if row[-1]:
            parts.append(Padding(_cell(row[-1]), (0, 0, 0, _INDENT)))
    return Group(*parts)


class Command(str):
    """A command to show: only the terminal wraps its line, so it can be copied whole."""

    __slots__ = ()


def put_facts(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair per line; pairs without a value are left out."""
    kept = [(name, value) for name, value in rows if value is not None and value != ""]
    width = max((len(name) for name, _ in kept), default=0)
    for is_command, run in groupby(kept, key=lambda row: isinstance(row[1], Command)):
        if not is_command:
            put(_grid(run, width))
            continue
        for name, value in run:
            line = Text.assemble((name.ljust(width), "dim"), "  ", _cell(value))
            out().print(line, soft_wrap=True)


def _grid(rows: Iterable[tuple[str, object]], width: int) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True, min_width=width)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, _cell(value))
    return made


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else clean(str(value)))


def _line(value: object) -> Text:
    """Return a cell that stays on one line, whatever a job's name or queue contains."""
    return value if isinstance(value, Text) else Text("" if value is None else one_line(value))


def _plain(value: Any) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case UUID() | Path():
            return str(value)
        case Enum():
            return value.value
        case bytes():
            return {"base64": base64.b64encode(value).decode("ascii")}
        case _:
            raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def with_priority(queue: object, priority: object) -> str | None:
    """Return a queue's name with the priority, or alone if the priority is unknown."""
    if not queue:
        return None
    return f"{queue}" if priority in (None, "") else f"{queue}, priority {priority}"
