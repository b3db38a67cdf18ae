"""`taskyard audit list`: the newest rows of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from taskyard import database
from taskyard.audit import list_unverified
from taskyard.audit.read import list_rows
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import reader_of
from taskyard.ops.cli.audit import filters as options
from taskyard.ops.cli.console import note, print_json, put, table, with_sentences
from taskyard.ops.cli.ids import short_id
from taskyard.ops.cli.options import Json, Limit, moment_of
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age, moment
from taskyard.settings import Settings

__all__ = ["command"]


def command(
    action: options.Action = None,
    by: options.By = None,
    outcome: options.Outcome = None,
    job: options.Job = None,
    letter: options.Letter = None,
    since: options.Since = None,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Denied calls without an identity, counted by source."),
    ] = False,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List who did what, the newest first."""
    settings = find_target(quiet=json).settings
    now = SYSTEM_CLOCK.now()
    if unverified:
        _list_unverified(settings, moment_of(since, now), limit, json=json)
        return
    chosen = options.filters_of(
        now, action=action, by=by, outcome=outcome, job=job, letter=letter, since=since
    )
    with database.opened(settings.need_database_url(), application_name="taskyard audit") as engine:
        rows = list_rows(engine, chosen, limit, identity=reader_of(engine, settings))
    if json:
        print_json(rows)
        return
    columns = ("request", "age", "action", "outcome", "by", "on", "reason")
    put(with_sentences(columns, [_cells(row, now) for row in rows]))
    if not rows:
        note("no row matches")
    elif len(rows) == limit:
        note(f"the newest {limit}; more with --limit, or narrow with --action, --by, --since")
    else:
        note("to see all rows of one request: taskyard audit show REQUEST")


def _list_unverified(settings: Settings, since: datetime | None, limit: int, *, json: bool) -> None:
    """Print counts that name neither a person nor a job, so an identity's bounds hide none."""
    with database.opened(settings.need_database_url(), application_name="taskyard audit") as engine:
        reader_of(engine, settings)  # a refused token refuses this read too
        rows = list_unverified(engine, since, limit)
    if json:
        print_json(rows)
        return
    columns = ("source", "why", "times", "first", "last")
    lines = [
        (row["source"], row["why"], row["count"], moment(row["first"]), moment(row["last"]))
        for row in rows
    ]
    put(table(columns, lines))
    if not rows:
        note("no denied call without an identity")


def _cells(row: Mapping[str, Any], now: datetime) -> tuple[object, ...]:
    behalf = row["on_behalf_of"]
    return (
        short_id(row["request_id"]),
        age(row["performed_at"], now),
        row["action_type"],
        row["outcome"].partition(":")[0],
        row["operator_identity"] + (f" for {behalf}" if behalf else ""),
        _target(row),
        row["reason"],
    )


def _target(row: Mapping[str, Any]) -> str:
    if row["dead_letter_id"] is not None:
        return f"letter {short_id(row['dead_letter_id'])}"
    job = row["target_request_id"]
    return "-" if job is None else f"job {short_id(job)}"
