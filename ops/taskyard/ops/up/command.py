"""`taskyard up`: embedded servers, schema, mirror, relay and a worker for each pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from taskyard import database
from taskyard.jobs import Catalogue, registry
from taskyard.ops.cli.console import note
from taskyard.ops.cli.env import TRUST_LOCAL
from taskyard.ops.cli.target import URLS
from taskyard.ops.embedded import EmbeddedStack, run_processes
from taskyard.ops.up.banner import banner
from taskyard.ops.up.processes import processes
from taskyard.settings import Loaded, load

__all__ = ["DRAIN_S", "command"]

DRAIN_S: Final = 60.0
_BUILTIN_JOBS: Final = {"TASKYARD_BUILTIN_JOBS": "1"}
# Celery warns that root is dangerous with pickle; our workers take JSON alone.
_NO_ROOT_WARNING: Final = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser"}


def command(
    workers: Annotated[
        bool, typer.Option("--workers/--no-workers", help="A worker for each pool, or none.")
    ] = True,
    concurrency: Annotated[
        int, typer.Option("-c", "--concurrency", min=1, help="Processes of each worker.")
    ] = 2,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that jobs get to finish after Ctrl-C.")
    ] = DRAIN_S,
    builtin: Annotated[
        bool, typer.Option("--builtin", help="Know and run the built-in jobs too.")
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    PostgreSQL and Valkey keep their data under TASKYARD_HOME (default: .taskyard here). Ctrl-C
    lets workers finish what they run; once more kills.
    """
    shared = _BUILTIN_JOBS if builtin else {}
    loaded = load({**os.environ, **shared})
    _note_unused(loaded)
    Catalogue.of(loaded.settings)
    registry.load_entry_points(built_in=loaded.settings.builtin_jobs)  # each worker logs failures
    with EmbeddedStack(loaded.settings.home, shared=shared) as stack:
        settings = load({**os.environ, **stack.environment()}).settings
        schema = database.migrate(stack.database_url)
        commands = processes(settings, workers=workers, concurrency=concurrency)
        banner(settings, stack.home.path, schema, list(commands))
        code = run_processes(
            commands, environment=_environment(stack), drain_s=drain, fault=stack.fault
        )
    raise typer.Exit(code)


def _environment(stack: EmbeddedStack) -> Mapping[str, str]:
    """For its own processes alone: everybody who can start them already owns the data."""
    return {**stack.environment(), **TRUST_LOCAL, **_NO_ROOT_WARNING}


def _note_unused(loaded: Loaded) -> None:
    given = [name for name in URLS if loaded.origins[name] != "default"]
    if given:
        named = ", ".join(f"{name} (from {loaded.origins[name]})" for name in given)
        note(f"not used, since `up` runs its own servers: {named}")
