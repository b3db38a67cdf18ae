"""What the audience sees: a live table on a terminal, plain lines elsewhere, nothing if silent."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from taskyard.clock import SYSTEM_CLOCK
from taskyard.ops.cli.console import out, put, table
from taskyard.ops.cli.visible import clean
from taskyard.ops.demo.cast import COLUMNS, Cast

__all__ = ["Screen", "screen_for"]

_BEAT_S: Final = 1.5
_STATE, _ID = COLUMNS.index("state"), COLUMNS.index("id")


class Screen(Protocol):
    """Where a scene is shown."""

    def scene(self, text: str) -> None:
        """The first line of a scene; where people watch, they get time for the one before."""
        ...

    def say(self, text: str, style: str = "") -> None:
        """A line of the story."""
        ...

    def show(self, thing: Any) -> None:
        """A table."""
        ...

    def update(self, cast: Cast) -> None:
        """The jobs as they stand now."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        ...


class _Terminal:
    """The story scrolls, the jobs' table stays below it."""

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
    """A line for each sentence and for each change of a job's state."""

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
    """For `--json`: the document is all."""

    def say(self, text: str, style: str = "") -> None:
        del text, style

    def show(self, thing: Any) -> None:
        del thing


def screen_for(*, silent: bool) -> Screen:
    """The screen that fits standard output."""
    console = out()
    if silent:
        return _Silence(console)
    return _Terminal(console) if console.is_terminal else _Lines(console)


def _aside(row: Sequence[object]) -> str:
    return f"({row[-1]})" if row[-1] else ""
