"""`taskyard audit export`: rows for an auditor, as JSON lines or for a spreadsheet."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from taskyard import database
from taskyard.audit.read import COLUMNS
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import identify
from taskyard.control.permit_audit_export import export_audit
from taskyard.ops.cli.audit import filters as options
from taskyard.ops.cli.console import note, print_json
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import Reason
from taskyard.ops.cli.standard_streams import leave
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.visible_text import clean, json_text

__all__ = ["command"]

# A spreadsheet treats a cell that begins with one of these as a formula. The escapes are the
# full-width forms of = + - @.
_FORMULA: Final = frozenset("=+-@|%\uff1d\uff0b\uff0d\uff20")


class Form(StrEnum):
    """The format of the rows."""

    JSONL = "jsonl"
    CSV = "csv"


def command(
    form: Annotated[Form, typer.Option("--format", help="JSON lines, or CSV.")] = Form.JSONL,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, which only you may read.")
    ] = None,
    reason: Reason = None,
    action: options.Action = None,
    by: options.By = None,
    outcome: options.Outcome = None,
    job: options.Job = None,
    letter: options.Letter = None,
    since: options.Since = None,
    until: options.Until = None,
    json: Json = False,
) -> None:
    """Write rows of the audit log for an auditor, secrets masked.

    The export is audited itself, before the first row is read. In CSV, a cell that a spreadsheet
    would treat as a formula begins with an apostrophe.
    """
    settings = find_target(quiet=json).settings
    chosen = options.filters_of(
        SYSTEM_CLOCK.now(),
        action=action,
        by=by,
        outcome=outcome,
        job=job,
        letter=letter,
        since=since,
        until=until,
    )
    with database.opened(settings.need_database_url(), application_name="taskyard audit") as engine:
        identity = identify(engine, settings)
        with (
            _target(out) as file,
            export_audit(engine, chosen, identity=identity, reason=reason) as export,
        ):
            if json and out is None:
                print_json({"request_id": export.request_id, "rows": list(export.rows)})
            else:
                _write(form, export.rows, file)
    if json and out is not None:
        print_json({"request_id": export.request_id, "count": export.count, "file": out})
    else:
        note(f"{export.count} rows; the export is request {export.request_id}")


@contextmanager
def _target(path: Path | None) -> Iterator[IO[str]]:
    """Yield standard output, or a file that appears only when it is complete."""
    if path is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            leave()
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(form: Form, rows: Iterable[Mapping[str, Any]], file: IO[str]) -> None:
    if form is Form.JSONL:
        for row in rows:
            file.write(json_text(dict(row), _plain, indent=None) + "\n")
        return
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in COLUMNS])


def _cell(value: Any) -> str:
    """Return a value as text that a spreadsheet does not compute."""
    match value:
        case None:
            return ""
        case dict():
            return json_text(value, _plain, indent=None)
        case _:
            text = clean(str(_plain(value)))
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
