"""The output of the demonstration: a live table at a terminal, else plain lines, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from taskyard.clock import SYSTEM_CLOCK
from taskyard.ops.cli.console import out, put, table
from taskyard.ops.cli.visible_text import clean
from taskyard.ops.demo.demo_jobs import COLUMNS, Cast

__all__ = ["Screen", "screen_for"]

_BEAT_S: Final = 1.5
_STATE, _ID = COLUMNS.index("state"), COLUMNS.index("id")


class Screen(Protocol):
    """Shows the steps."""

    def scene(self, text: str) -> None:
        """Print the first line of a step; at a terminal wait first, so that people can read."""
        ...

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        ...

    def show(self, thing: Any) -> None:
        """Print a table."""
        ...

    def update(self, cast: Cast) -> None:
        """Show the jobs' current states."""
        ...

    def __enter__(self) -> Self:
        """Start the output."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the output."""
        ...


class _Terminal:
    """The lines scroll, and the jobs' table stays below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def scene(self, text: str) -> None:
        SYSTEM_CLOCK.wait_s(_BEAT_S)
        self.say(text, "bold")

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(clean(text), style=style), soft_wrap=True)

    def show(self, thing: Any) -> None:
        self._console.print(thing)

    def update(self, cast: Cast) -> None:
        self._live.update(table(COLUMNS, cast.rows()), refresh=True)


class _Lines:
    """Print one line for each sentence and for each change of a job's state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[object, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def scene(self, text: str) -> None:
        self.say(text)

    def say(self, text: str, style: str = "") -> None:
        del style
        self._console.print(clean(text), soft_wrap=True)

    def show(self, thing: Any) -> None:
        put(thing)

    def update(self, cast: Cast) -> None:
        for row in cast.rows():
            if self._shown.get(row[_ID]) != row[_STATE]:
                self._shown[row[_ID]] = row[_STATE]
                self.say(f"  {row[0]} ({row[_ID]}) is {row[_STATE]} {_aside(row)}".rstrip())


class _Silence(_Lines):
    """Prints nothing, for `--json`: the output is only the document."""

    def say(self, text: str, style: str = "") -> None:
        del text, style

    def show(self, thing: Any) -> None:
        del thing


def screen_for(*, silent: bool) -> Screen:
    """Return the screen that fits standard output."""
    console = out()
    if silent:
        return _Silence(console)
    return _Terminal(console) if console.is_terminal else _Lines(console)


def _aside(row: Sequence[object]) -> str:
    return f"({row[-1]})" if row[-1] else ""
