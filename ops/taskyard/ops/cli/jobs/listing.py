"""`taskyard jobs list`: the newest jobs of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taskyard import database, ledger
from taskyard.access import Identity
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import reader_of
from taskyard.jobs.states import State
from taskyard.ops.cli.console import note, print_json, put, with_sentences
from taskyard.ops.cli.ids import short_id
from taskyard.ops.cli.jobs.current_cause import with_current_cause
from taskyard.ops.cli.options import Json, Limit, moment_of
from taskyard.ops.cli.summary_line import summary_line
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age, lasted
from taskyard.settings import Settings
from taskyard.wire.redaction import redact_text

__all__ = ["command"]

_NO_JOB: Final = "there is no job yet. Enqueue one: taskyard jobs enqueue TYPE PAYLOAD"
_NO_MATCH: Final = "no job matches. To see the newest jobs of all kinds: taskyard jobs list"


def command(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only this job type.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only job types of this domain.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Changed since: 15m, 2h, 7d, or a time.")
    ] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the newest jobs of the ledger.

    The ledger is updated shortly after the live records; `taskyard jobs show` reads both.
    """
    settings = find_target(quiet=json).settings
    now = SYSTEM_CLOCK.now()
    wanted = ledger.Wanted(
        state=None if state is None else state.value,
        job_type=job_type,
        queue=queue,
        domain=domain,
        since=moment_of(since, now),
    )
    with database.opened(settings.need_database_url()) as engine:
        reader = reader_of(engine, settings)
        with engine.connect() as connection:
            found = ledger.newest(connection, wanted, limit, identity=reader)
            rows = _with_causes(connection, found)
            starts = ledger.starts_after_replay(connection, rows)
            if not rows and queue is not None:
                _check_queue(connection, settings, queue, reader)
    if json:
        print_json(rows)
        return
    columns = ("id", "type", "queue", "state", "attempts", "took", "age", "cause")
    put(
        with_sentences(
            columns,
            [
                (
                    short_id(row["job_id"]),
                    row["job_type"],
                    row["queue"],
                    row["state"],
                    row["attempts"],
                    _took(row, starts),
                    age(row["updated_at"], now),
                    _cause(row),
                )
                for row in rows
            ],
        )
    )
    if not rows:
        note(_NO_MATCH if wanted != ledger.Wanted() else _NO_JOB)
    elif len(rows) == limit:
        note(f"the newest {limit}; more with --limit, or narrow with --state, --type, --since")


def _with_causes(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    said = ledger.messages_of(connection, rows)
    words = {life: redact_text(text) for life, text in said.items()}
    return [
        with_current_cause({**row, "error": words.get((row["job_id"], row["epoch"]))})
        for row in rows
    ]


def _took(row: Mapping[str, Any], starts: Mapping[tuple[str, int], datetime]) -> str | None:
    """Return the time from the first start to the end.

    For a replayed job this is the time from the first start after the replay.
    """
    if row["ended_at"] is None:
        return None
    again = starts.get((row["job_id"], row["epoch"]))
    return lasted(again if row["generation"] else row["started_at"], row["ended_at"])


def _cause(row: Mapping[str, Any]) -> str | None:
    """Return code and text; a job that died without either has none."""
    parts = [str(row["code"] or ""), summary_line(str(row["error"] or ""))]
    return ": ".join(part for part in parts if part) or None


def _check_queue(
    connection: Connection, settings: Settings, queue: str, reader: Identity | None
) -> None:
    """Raise `UnknownQueue` for a name that neither the settings nor any visible job has."""
    if not ledger.newest(connection, ledger.Wanted(queue=queue), 1, identity=reader):
        settings.queue(queue)
