"""`taskyard worker`: start Celery's worker for a pool, with the options that the pool needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from taskyard.jobs import Catalogue
from taskyard.ops.cli.target_servers import CREDENTIALS, find_target
from taskyard.settings import Settings, load, refuse_operator_credentials

__all__ = ["EVERY_POOL", "command", "words"]

EVERY_POOL: Final = "all"
_APP: Final = "taskyard.workers.app"


def command(
    context: typer.Context,
    pool: Annotated[
        str,
        typer.Option("--pool", help="A queue of [queues] in taskyard.toml, or `all`."),
    ] = EVERY_POOL,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "-c", "--concurrency", min=1, help="Number of processes; the default is one per CPU."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Without Celery's banner.")] = False,
) -> None:
    """Run a Celery worker for one pool.

    All other options are passed to `celery worker` unchanged, e.g. `--max-tasks-per-child 100`.
    After SIGTERM or Ctrl-C it finishes its running jobs, then ends. It does not inherit
    TASKYARD_TOKEN and TASKYARD_SIGNING_KEY, which its jobs could use. It does not start where
    taskyard.toml has them.
    """
    target = find_target(quiet=False)
    settings = target.settings
    argv = words(settings, pool, concurrency, context.args, quiet=quiet)
    settings.need_broker_url()
    settings.need_redis_url()
    Catalogue.of(settings)
    sys.stdout.flush()
    kept = {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
    environ = {**kept, **target.environ}
    refuse_operator_credentials(load(environ).settings, environ)
    os.execve(sys.executable, argv, environ)  # noqa: S606 - no shell needed


def words(
    settings: Settings,
    pool: str,
    concurrency: int | None,
    rest: Sequence[str] = (),
    *,
    quiet: bool = False,
) -> list[str]:
    """Return the command line of a pool's worker; raises `UnknownQueue`. Later options win."""
    queues = list(settings.queues) if pool == EVERY_POOL else [pool]
    for queue in queues:
        settings.queue(queue)
    names = ",".join(settings.broker_name(queue) for queue in queues)
    argv = [
        sys.executable,
        "-m",
        "celery",
        *(["--quiet"] if quiet else []),
        "--app",
        _APP,
        "worker",
    ]
    argv += ["--queues", names, "--hostname", f"{pool}.{os.getpid()}@%h", "--optimization", "fair"]
    argv += ["--loglevel", "INFO"]
    if concurrency is not None:
        argv += ["--concurrency", str(concurrency)]
    return [*argv, *rest]
