"""Run the command line: parse the words, import the one named command, run it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.main import get_command

from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.error_output import Switches, report_failure
from taskyard.ops.cli.lazy_commands import Group, pending
from taskyard.ops.cli.options import check_utf8
from taskyard.ops.cli.standard_streams import BROKEN_PIPE, silence

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Run `taskyard` with these words; return the exit code."""
    # The commands print what a person must read; without a handler Python would also print logs.
    logging.getLogger().addHandler(logging.NullHandler())
    switches = Switches(json="--json" in words)
    try:
        _check_words(words)
        code = _root().main(list(words), prog_name="taskyard", standalone_mode=False, obj=switches)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # nothing can read Typer's help
            silence()
            return BROKEN_PIPE
        return report_failure(end, switches)
    except BaseException as error:  # noqa: BLE001 - any error is reported in one line
        return report_failure(error, switches)
    return code if isinstance(code, int) else 0


def _check_words(words: Sequence[str]) -> None:
    """Raise `typer.BadParameter` for a word that is not UTF-8, such as some file names."""
    for word in words:
        if not word.startswith("@"):
            check_utf8(word)


def _root() -> Any:
    app = typer.Typer(cls=Group, no_args_is_help=True, help=__help__)
    app.callback()(_options)
    root = cast(Group, get_command(app))
    for name, entry in COMMANDS.items():
        root.add_command(pending(name, entry))
    return root


__help__ = """Run, watch and repair a task platform on Celery.

Start here: `taskyard demo` shows everything in a minute.
"""


def _options(
    context: typer.Context,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the stack trace of a failure.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=lambda wanted: _print_version() if wanted else None,
        ),
    ] = False,
) -> None:
    context.obj.traceback = traceback


def _print_version() -> NoReturn:
    from importlib.metadata import version as installed  # noqa: PLC0415 - only this option needs it

    typer.echo(installed("taskyard"))
    raise typer.Exit


_options.__doc__ = __help__
