"""Commands that are imported only when they are used, so that `taskyard --help` is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

__all__ = ["Command", "Group", "Noun", "load", "pending"]


@dataclass(frozen=True, slots=True)
class Command:
    """A verb: `module` holds a function `command`; `help` is its docstring's first sentence.

    `passes_rest` passes words that it does not know to the command.
    """

    module: str
    help: str
    passes_rest: bool = False


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun and its verbs."""

    help: str
    verbs: Mapping[str, Command]


class _Pending(TyperCommand):
    """A placeholder for a command: its line of help, until the command is used."""

    def __init__(self, name: str, entry: Command) -> None:
        super().__init__(name, help=entry.help)
        self.entry = entry


class Group(TyperGroup):
    """A group that imports a pending command when a word names it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import and return the command that the first word names."""
        name, command, rest = super().resolve_command(ctx, args)
        ctx.obj.path = f"{ctx.command_path} {name}"
        if isinstance(command, _Pending):
            return name, load(str(command.name), command.entry), rest
        return name, command, rest


def pending(name: str, entry: Command | Noun) -> TyperCommand | Group:
    """Return a placeholder for a command or a group of commands."""
    if isinstance(entry, Command):
        return _Pending(name, entry)
    commands: dict[str, Any] = {
        verb: pending(verb, command) for verb, command in entry.verbs.items()
    }
    return Group(name=name, help=entry.help, commands=commands, no_args_is_help=True)


def load(name: str, entry: Command) -> Any:
    """Import a command and let Typer read its signature."""
    app = typer.Typer(add_completion=False)
    rest = {"allow_extra_args": True, "ignore_unknown_options": True} if entry.passes_rest else {}
    app.command(name, context_settings=rest)(import_module(entry.module).command)
    return get_command(app)
