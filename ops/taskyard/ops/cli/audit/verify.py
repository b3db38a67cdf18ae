"""`taskyard audit verify`: find changes in the audit log since it was sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from taskyard import database
from taskyard.audit import MEANINGS, Report, archives_in, given_heads, verify
from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import InvalidPayload
from taskyard.ops.cli.console import note, print_json, put, say, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age

__all__ = ["command"]

_CHANGED: Final = 1


def command(
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEAD", help="An exported head (SEQ:HASH), or a file that contains some."
        ),
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(help="An archive of older rows, or a folder that holds some."),
    ] = None,
    json: Json = False,
) -> None:
    """Find changes in the audit log since it was sealed.

    Each row is compared with its seal, each seal with the one before, and the chain with the heads
    that were exported: those of `--head`, and of the file that TASKYARD_AUDIT_HEAD_FILE names. Exit
    code 1 if anything was changed.
    """
    settings = find_target(quiet=json).settings
    heads = given_heads([*(head or []), *_own(settings.audit_head_file)])
    with database.opened(settings.need_database_url(), application_name="taskyard audit") as engine:
        archiving = settings.audit_retention_days > 0
        report = verify(engine, heads, _archives(archive or []), archiving=archiving)
    if json:
        print_json(report.document())
    else:
        _print(report)
    if not report.intact:
        raise typer.Exit(_CHANGED)


def _own(path: Path | None) -> list[str]:
    """Return the file of heads in the settings, if this machine has the file."""
    return [str(path)] if path is not None and path.exists() and path.stat().st_size else []


def _archives(given: list[Path]) -> list[Path]:
    """Return the archives that are meant; raises `InvalidPayload` for a folder without archives."""
    found: list[Path] = []
    for path in given:
        held = archives_in(path) if path.is_dir() else [path]
        if not held:
            raise InvalidPayload(
                f"the folder {path} holds no archive of the audit log. Give the folder that "
                "TASKYARD_AUDIT_ARCHIVE_FOLDER names"
            )
        found += held
    return found


def _print(report: Report) -> None:
    rows_in = f"{_count(report.rows, 'row')} in {_count(report.seals, 'seal')}"
    say(f"{rows_in}; the head is {report.head or 'none yet'}")
    if report.unsealed:
        since = age(report.unsealed_since, SYSTEM_CLOCK.now())
        if report.unsealed == 1:
            say(f"1 row is not sealed yet, for {since}; the relay seals it")
        else:
            rows_are = f"{report.unsealed} rows are not sealed yet"
            say(f"{rows_are}, the oldest for {since}; the relay seals them")
    if report.counts:
        counted = sorted(report.counts.items())
        rows = [(kind.value, count, MEANINGS[kind]) for kind, count in counted]
        put(table(("found", "times", "meaning"), rows))
        for finding in report.findings:
            say(f"{finding.kind}: {finding.text}", "red")
    for line in report.notes:
        note(line)
    if report.intact:
        say(f"no sealed row was changed{_heads_found(report.heads)}", "green")
    else:
        say("the audit log was changed after it was sealed", "red")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _heads_found(heads: int) -> str:
    match heads:
        case 0:
            return ""
        case 1:
            return ", and 1 exported head is in it"
        case _:
            return f", and {heads} exported heads are in it"
