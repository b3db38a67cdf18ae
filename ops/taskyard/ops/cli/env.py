"""`taskyard env`: every setting in force, its value and its origin."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from taskyard.ops.cli.console import print_json, put, say, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import URLS, Target, find_target
from taskyard.ops.embedded import environment_of
from taskyard.settings import load
from taskyard.wire import redact_url
from taskyard.wire.redaction import MASK

__all__ = ["command"]

TRUST_LOCAL: Final = {"TASKYARD_TRUST_LOCAL": "1"}
_CONFIG: Final = "TASKYARD_CONFIG"


def command(
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Show the passwords in URLs.")
    ] = False,
    export: Annotated[
        bool,
        typer.Option("--export", help="Print shell lines that name the servers of `taskyard up`."),
    ] = False,
    json: Json = False,
) -> None:
    """Print every setting in force and where it comes from.

    For a shell that should use the servers of `taskyard up`: eval "$(taskyard env --export)"
    """
    if export:
        _export(json=json)
        return
    target = find_target(quiet=json)
    shown = _shown(target, show_secrets=show_secrets)
    if json:
        print_json(shown)
        return
    rows = [(name, fact["origin"], _text(fact["value"])) for name, fact in shown.items()]
    put(table(("setting", "origin", "value"), rows))


def _export(*, json: bool) -> None:
    """Print lines for a shell, with passwords, since a shell needs them."""
    variables = {**environment_of(load().settings.home), **TRUST_LOCAL, **_config()}
    if json:
        print_json(variables)
        return
    for name, value in variables.items():
        say(f"export {name}={shlex.quote(value)}")


def _config() -> dict[str, str]:
    """Return the file in force by its full path: the shell must find it from any folder."""
    named = os.environ.get(_CONFIG)
    return {} if named is None else {_CONFIG: str(Path(named).absolute())}


def _shown(target: Target, *, show_secrets: bool) -> dict[str, dict[str, Any]]:
    values = target.settings.model_dump(mode="json")
    for name in URLS:
        if values[name] is not None and not show_secrets:
            values[name] = redact_url(values[name])
    if values["token"] is not None:  # shown once, when it was made
        values["token"] = MASK
    return {name: {"value": values[name], "origin": target.origins[name]} for name in values}


def _text(value: object) -> str:
    match value:
        case None:
            return "(not set)"
        case dict():
            return ", ".join(f"{name} {_limits(facts)}" for name, facts in value.items())
        case list():
            return os.pathsep.join(str(item) for item in value) or "(none)"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _limits(queue: dict[str, Any]) -> str:
    promise = "" if queue["sla_s"] is None else f", {queue['sla_s']:g} s"
    return f"(1-{queue['priorities']}{promise})"
