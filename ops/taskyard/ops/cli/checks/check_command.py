"""`taskyard check`: everything that can be checked without running a job."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.text import Text

from taskyard.broker import is_amqp
from taskyard.broker.connection import check_broker_url, same_redis
from taskyard.errors import InvalidSettings, MissingSetting, TaskyardError
from taskyard.install import Mode
from taskyard.jobs import Catalogue, registry
from taskyard.ops.cli.checks import (
    dead_letters,
    install_plan,
    job_types,
    key_files,
    postgres_server,
    rabbitmq_server,
    redis_server,
    required_redis_commands,
    switches_on,
    unserved_queues,
)
from taskyard.ops.cli.checks.finding import Finding, Level, judged
from taskyard.ops.cli.console import out, print_json, print_sentence
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import Target, find_target
from taskyard.ops.cli.visible_text import clean
from taskyard.settings import Settings
from taskyard.store import BROKER, RECORDS
from taskyard.wire.redaction import redact_text

__all__ = ["command", "findings", "print_finding"]

_SUBJECT: Final = 10  # Width of the longest subject but one; all details begin in the same column.
_DETAIL: Final = len("✓ ") + _SUBJECT + len(" ")
_MARKS: Final = {Level.OK: "✓", Level.WARNING: "!", Level.ERROR: "✗"}
_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def command(
    app: Annotated[
        str | None,
        typer.Argument(help="An existing Celery app, as `celery -A` takes it: myapp:celery."),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="With APP: check this mode of install instead of the app's own."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what is wrong, without running anything.

    With APP, say instead what `taskyard.install` changes for each of its tasks. The exit code is 0
    if there is no error (warnings do not count), else that of the first error.
    """
    if app is not None:
        install_plan.report(app, mode, json=json)
        return
    found = []
    for finding in findings(quiet=json):
        found.append(finding)
        if not json:
            print_finding(finding)
    errors = [finding for finding in found if finding.level is Level.ERROR]
    warnings = sum(finding.level is Level.WARNING for finding in found)
    if json:
        print_json({"ok": not errors, "findings": [asdict(finding) for finding in found]})
    else:
        out().print(_verdict(len(errors), warnings))
    if errors:
        raise typer.Exit(errors[0].exit_code)


def findings(*, quiet: bool) -> Iterator[Finding]:
    """Yield all findings, in the order in which a person would look."""
    try:
        target = find_target(quiet=quiet)
    except TaskyardError as error:
        yield Finding("settings", Level.ERROR, str(error), exit_code=error.exit_code)
        return
    yield Finding.ok("settings", _origins(target))
    settings = target.settings
    types: Collection[str] = ()
    try:
        catalogue = Catalogue.of(settings)
    except TaskyardError as error:
        yield Finding("job types", Level.ERROR, str(error), exit_code=error.exit_code)
    else:
        yield from judged("job types", lambda: job_types.look_at(settings, catalogue))
        yield from judged("handlers", lambda: job_types.handlers(settings, catalogue, registry))
        types = job_types.known_types(catalogue, registry)
    yield from judged("Redis", lambda: _redis(settings))
    yield from judged("broker", lambda: _broker(settings))
    yield from judged("switches", lambda: switches_on.look_at(settings))
    yield from judged("workers", lambda: unserved_queues.look_at(settings, types))
    yield from judged("letters", lambda: dead_letters.look_at(settings))
    yield from judged("Postgres", lambda: postgres_server.look_at(settings.need_database_url()))
    yield from judged("keys", lambda: key_files.look_at(settings))


def _origins(target: Target) -> str:
    given = [name for name, origin in target.origins.items() if origin != "default"]
    return (
        f"{len(given)} given ({', '.join(given)}), the others are defaults"
        if given
        else ("all are defaults")
    )


def _redis(settings: Settings) -> Iterator[Finding]:
    needs = [*required_redis_commands.of_records(settings)]
    if _shares_redis(settings):
        needs += required_redis_commands.of_broker(settings)
    return redis_server.look_at("Redis", settings.need_redis_url(), RECORDS, needs)


def _shares_redis(settings: Settings) -> bool:
    """Return whether the broker is the records' Redis.

    An invalid URL is reported with the broker.
    """
    try:
        return same_redis(settings)
    except (MissingSetting, InvalidSettings):
        return False


def _broker(settings: Settings) -> Iterator[Finding]:
    if is_amqp(settings):
        yield from rabbitmq_server.look_at_broker(settings)
        return
    url = check_broker_url(settings)
    if settings.redis_url is not None and same_redis(settings):
        yield Finding.ok(
            "broker", "the same server as the records: admission publishes in one step"
        )
        return
    yield from redis_server.look_at(
        "broker", url, BROKER, required_redis_commands.of_broker(settings)
    )


def print_finding(finding: Finding) -> None:
    """Print a finding for a person; text that does not fit into its line continues below it."""
    line = Text(f"{_MARKS[finding.level]} ", style=_STYLES[finding.level])
    line.append(f"{finding.subject:<{_SUBJECT}} ", style="bold")
    line.append(clean(redact_text(finding.detail)))
    if finding.remedy:
        remedy = clean(finding.remedy)
        line.append(f" {remedy}" if finding.detail.endswith(".") else f". {remedy}")
    print_sentence(line, indent=_DETAIL)


def _verdict(errors: int, warnings: int) -> Text:
    aside = f" ({warnings} warning{'s' * (warnings != 1)})" if warnings else ""
    if errors:
        return Text(f"{errors} thing{'s' * (errors != 1)} wrong{aside}", style="bold red")
    return Text(f"nothing is wrong{aside}", style="bold green")
