"""`taskyard up`: embedded servers, schema, mirror, relay and a worker for each pool."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from taskyard import database
from taskyard.database import SchemaStatus
from taskyard.jobs import Catalogue, registry
from taskyard.ops.cli.console import Command, note, put_facts, say
from taskyard.ops.cli.target_servers import CREDENTIALS, URLS
from taskyard.ops.embedded import EmbeddedStack, run_processes
from taskyard.settings import Loaded, Settings, load, refuse_operator_credentials
from taskyard.wire import redact_url

__all__ = ["DRAIN_S", "command"]

DRAIN_S: Final = 60.0
_BUILTIN_JOBS: Final = {"TASKYARD_BUILTIN_JOBS": "1"}
# Celery warns that root is dangerous with pickle; our workers accept only JSON.
_NO_ROOT_WARNING: Final = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser"}
_NEXT: Final = (
    'eval "$(taskyard env --export)"   # in another shell: use these servers there',
    "taskyard check",
)
_ENQUEUE_BUILT_IN: Final = (
    """taskyard jobs enqueue batch_locator_generation '{"html": "<button>Buy</button>"}' --wait"""
)
_ENQUEUE: Final = "taskyard jobs enqueue TYPE PAYLOAD --wait   # types: taskyard types list"
_SELF: Final = (sys.executable, "-m", "taskyard.ops.cli")
# On one machine there are no other workers to exchange events with.
_ALONE: Final = ("--without-gossip", "--without-mingle")
# The runner writes time and name before each line, so Celery need not.
_PLAIN_LOG: Final = (
    "--",
    "worker.redirect_stdouts=false",
    "worker.log_format=%(levelname)s %(message)s",
    "worker.task_log_format=%(levelname)s %(task_name)s[%(task_id)s] %(message)s",
)
_NO_CREDENTIALS: Final = dict.fromkeys(CREDENTIALS, "")
_NO_TRUST: Final = {"TASKYARD_TRUST_LOCAL": "0"}
_NO_DATABASE: Final = {"TASKYARD_DATABASE_URL": ""}
_WITH_DATABASE: Final = ("mirror", "relay", "ops")
_RESERVED: Final = ("mirror", "relay", "system")


def command(
    workers: Annotated[
        bool, typer.Option("--workers/--no-workers", help="A worker for each pool, or none.")
    ] = True,
    concurrency: Annotated[
        int, typer.Option("-c", "--concurrency", min=1, help="Number of processes of each worker.")
    ] = 2,
    drain: Annotated[
        float, typer.Option(min=0, help="How many seconds jobs get to finish after Ctrl-C.")
    ] = DRAIN_S,
    builtin: Annotated[bool, typer.Option("--builtin", help="Also run the built-in jobs.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    PostgreSQL and Valkey keep their data under TASKYARD_HOME (default: .taskyard here). After
    Ctrl-C workers finish their running jobs; a second Ctrl-C kills.
    """
    shared = _BUILTIN_JOBS if builtin else {}
    loaded = load({**os.environ, **shared})
    if workers:
        inherited = {**os.environ, **_NO_CREDENTIALS}
        refuse_operator_credentials(load(inherited).settings, inherited)
    _note_unused(loaded)
    Catalogue.of(loaded.settings)
    registry.load_entry_points(built_in=loaded.settings.builtin_jobs)  # each worker logs failures
    with EmbeddedStack(loaded.settings.home, shared=shared) as stack:
        settings = load({**os.environ, **stack.environment()}).settings
        schema = database.migrate(stack.database_url)
        commands = processes(settings, workers=workers, concurrency=concurrency)
        banner(settings, stack.home.path, schema, list(commands))
        code = run_processes(
            commands,
            environment=_environment(stack),
            own=withheld(commands),
            drain_s=drain,
            fault=stack.fault,
        )
    raise typer.Exit(code)


def _environment(stack: EmbeddedStack) -> Mapping[str, str]:
    """Return the variables of its processes; none of them is trusted as a local operator."""
    return {**stack.environment(), **_NO_TRUST, **_NO_ROOT_WARNING, **_NO_CREDENTIALS}


def withheld(commands: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Return variables by process: of the workers, only that of operator tasks needs Postgres."""
    return {name: _NO_DATABASE for name in commands if name not in _WITH_DATABASE}


def _note_unused(loaded: Loaded) -> None:
    given = [name for name in URLS if loaded.origins[name] != "default"]
    if given:
        named = ", ".join(f"{name} (from {loaded.origins[name]})" for name in given)
        note(f"ignored, since `up` runs its own servers: {named}")


def banner(settings: Settings, home: Path, schema: SchemaStatus, processes: Sequence[str]) -> None:
    """Print what runs where, and what to do next."""
    servants = ("mirror", "relay")
    workers = [name for name in processes if name not in servants]
    rows: list[tuple[str, object]] = [
        ("home", home),
        ("Valkey", f"{redact_url(settings.need_redis_url())} (broker and records)"),
        ("PostgreSQL", f"{redact_url(settings.need_database_url())} (schema {schema.current})"),
        ("processes", ", ".join(servants)),
        ("workers", ", ".join(workers) or "none (--no-workers)"),
    ]
    steps = (*_NEXT, _ENQUEUE_BUILT_IN if settings.builtin_jobs else _ENQUEUE)
    rows += [("next" if line == steps[0] else "", Command(line)) for line in steps]
    rows.append(("stop", "Ctrl-C: workers finish their running jobs"))
    put_facts(rows)
    say("")


def processes(
    settings: Settings, *, workers: bool, concurrency: int
) -> Mapping[str, Sequence[str]]:
    """Return the command lines by name: mirror, relay and, if `workers`, a worker per queue."""
    found: dict[str, Sequence[str]] = {"mirror": [*_SELF, "mirror"], "relay": [*_SELF, "relay"]}
    if workers:
        for queue in settings.queues:
            options = ["--pool", queue, "--concurrency", str(concurrency), "--quiet"]
            name = f"worker-{queue}" if queue in _RESERVED else queue
            found[name] = [*_SELF, "worker", *options, *_ALONE, *_PLAIN_LOG]
    return found
