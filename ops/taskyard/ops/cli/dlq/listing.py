"""`taskyard dlq list`: the newest dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from taskyard import database
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import letters, reader_of
from taskyard.jobs import Category
from taskyard.jobs.error_codes import EXCEPTION
from taskyard.jobs.letter_states import LetterStatus
from taskyard.ops.cli.console import note, print_json, put, with_sentences
from taskyard.ops.cli.ids import short_id
from taskyard.ops.cli.options import Json, Limit, moment_of
from taskyard.ops.cli.summary_line import summary_line
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age

__all__ = ["command", "letter_table"]


def command(
    category: Annotated[Category | None, typer.Option(help="Only this category.")] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only this job type.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only job types of this domain.")] = None,
    status: Annotated[LetterStatus | None, typer.Option(help="Only this status.")] = None,
    job: Annotated[
        str | None, typer.Option(help="Only of this job: its id or first characters.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Dead since: 15m, 2h, 7d, or a time.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the newest dead letters.

    Deleted ones are listed only with `--status deleted`.
    """
    settings = find_target(quiet=json).settings
    now = SYSTEM_CLOCK.now()
    filters = letters.Filters(
        status=status,
        failure_category=None if category is None else category.value,
        job_type=job_type,
        queue=queue,
        domain=domain,
        job_id=job,
        since=moment_of(since, now),
    )
    with database.opened(settings.need_database_url()) as engine:
        rows = letters.list(engine, filters, limit, identity=reader_of(engine, settings))
    if json:
        print_json(rows)
        return
    put(letter_table(rows, now))
    if not rows:
        note("no dead letter matches")
    elif len(rows) == limit:
        note(f"the newest {limit}; more with --limit, or narrow with --category, --type, --since")
    else:
        note("to see one in full: taskyard dlq show ID")


def letter_table(rows: Sequence[dict[str, Any]], now: datetime) -> RenderableType:
    """Return a table of letters, one per line; the cause uses the remaining width."""
    columns = ("id", "job", "age", "type", "category", "status", "attempts", "queue", "cause")
    return with_sentences(
        columns,
        [
            (
                short_id(row["id"]),
                short_id(row["job_id"]),
                age(row["decided_at"], now),
                row["job_type"] or "?",
                row["failure_category"],
                row["status"],
                row["attempts"],
                row["queue"] or "?",
                _cause(row),
            )
            for row in rows
        ],
    )


def _cause(row: dict[str, Any]) -> str:
    said = summary_line(str(row["failure_reason"] or ""))
    code = row["failure_code"]
    named = f"{row['error_class']}: {said}" if code == EXCEPTION and row["error_class"] else said
    return f"{code}: {named}" if code else named
