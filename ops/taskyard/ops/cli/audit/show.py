"""`taskyard audit show`: all rows of one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from taskyard import database
from taskyard.audit.read import show
from taskyard.control import reader_of
from taskyard.ops.cli.console import print_json, put, put_facts, say, with_sentences
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import moment
from taskyard.ops.cli.visible_text import json_text

__all__ = ["command"]


def command(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="A request's id, or its first characters.")
    ],
    json: Json = False,
) -> None:
    """Show all rows of one request, secrets masked."""
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url(), application_name="taskyard audit") as engine:
        rows = show(engine, request, identity=reader_of(engine, settings))
    if json:
        print_json(rows)
        return
    put_facts(_facts(rows[0]))
    say("")
    columns = ("row", "at", "outcome", "seal", "detail")
    put(with_sentences(columns, [_cells(row) for row in rows]))


def _facts(row: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "request", row["request_id"]
    yield "action", row["action_type"]
    yield "by", f"{row['operator_identity']}, via {row['identity_via']}"
    yield "on behalf of", row["on_behalf_of"]
    yield "reason", row["reason"]
    yield "job", row["target_request_id"]
    yield "letter", row["dead_letter_id"]


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    word, _, why = row["outcome"].partition(": ")
    detail = json_text(row["detail"], indent=None) if row["detail"] else ""
    seal = "not yet" if row["seal"] is None else row["seal"]
    return row["id"], moment(row["performed_at"]), word, seal, " ".join(filter(None, (why, detail)))
