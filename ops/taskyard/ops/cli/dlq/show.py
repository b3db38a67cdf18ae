"""`taskyard dlq show`: one letter, for a person or for a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, assert_never

import typer
from rich.console import RenderableType
from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.clock import from_us, seconds_of
from taskyard.control import identify, letters, read_payload, reader_of
from taskyard.control.replay_history import ReplayHistory, replay_history_of
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN
from taskyard.jobs.replay_by_category import NEEDS, Needs
from taskyard.ops.cli.console import (
    Command,
    print_json,
    put,
    put_facts,
    say,
    with_priority,
    with_sentences,
)
from taskyard.ops.cli.dlq.describe_replays import replay_history
from taskyard.ops.cli.ids import read_ids
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import moment
from taskyard.ops.cli.visible_text import json_text

__all__ = ["command"]


def command(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="The captured message unchanged, with its secrets.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Of --raw: why you read it; kept in the audit log.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one dead letter, secrets masked.

    `--raw` prints the message that a replay would send, as JSON with a body in base64. It needs an
    identity that may do `read_payload`, and a reason.
    """
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url()) as engine:
        if raw:
            identity = identify(engine, settings)
            messages = [_message(engine, name, identity, reason) for name in read_ids(ids)]
            _print_documents(messages)
            return
        reader = reader_of(engine, settings)
        found = [letters.show(engine, name, identity=reader) for name in read_ids(ids)]
        extra = [(letter, replay_history_of(engine, letter)) for letter in found]
    if json:
        _print_documents([_document(letter, history) for letter, history in extra])
        return
    for letter, history in extra:
        _print(letter, history)


def _message(engine: Engine, name: str, identity: Identity, reason: str | None) -> dict[str, Any]:
    message = read_payload(engine, name, identity=identity, reason=reason)
    return message.model_dump(mode="json")


def _print_documents(documents: list[dict[str, Any]]) -> None:
    print_json(documents[0] if len(documents) == 1 else documents)


def _document(letter: dict[str, Any], history: ReplayHistory) -> dict[str, Any]:
    """Return the letter with names as in `dlq list` and `jobs show`: `attempts` is a number."""
    failed = letter["attempts"]
    extra = {"attempts": letters.count(failed), "failed_attempts": failed}
    return {**letter, **extra, "replayable": history.why_not is None, **asdict(history)}


def _print(letter: dict[str, Any], history: ReplayHistory) -> None:
    put_facts(_facts(letter, history))
    if letter["attempts"]:
        say("")
        put(_attempts(letter["attempts"]))
    if letter["traceback"]:
        say("\n" + str(letter["traceback"]).rstrip())
    say("")
    put_facts([("next", _next(letter, history))])


def _facts(letter: dict[str, Any], history: ReplayHistory) -> Iterator[tuple[str, object]]:
    yield "letter", letter["id"]
    yield "job", letter["original_request_id"]
    yield "type", letter["job_type"]
    yield "domain", letter["domain"]
    yield "queue", with_priority(letter["queue"], letter["priority"])
    yield "category", letter["failure_category"]
    yield "code", letter["failure_code"]
    yield "cause", letter["failure_reason"]
    yield "error", letter["error_class"]
    yield "status", letter["status"]
    yield from replay_history(letter, history)
    yield "died", moment(letter["decided_at"])
    yield "first failure", moment(letter["first_failure_at"])
    yield "attempts", letters.count(letter["attempts"])
    yield "replays before", letter["generation"] or None
    yield "worker", letter["worker"]
    yield "escalate to", letter["escalate_to"]
    yield "fingerprint", letter["fingerprint"]
    yield "evidence", _compact(letter["evidence"])
    yield "args", _compact(letter["args"])
    yield "kwargs", _compact(letter["kwargs"])
    yield "body", _body(letter)
    yield "mirror error", letter["mirror_error"]


def _attempts(notes: list[dict[str, Any]]) -> RenderableType:
    columns = ("attempt", "started", "took", "worker", "outcome", "error")
    rows = [
        (
            note.get("attempt"),
            moment(from_us(note["started_us"])),
            f"{seconds_of(note['ended_us'] - note['started_us']):.2f} s",
            note.get("worker"),
            note.get("outcome"),
            f"{note.get('code')}: {note.get('error')}",
        )
        for note in notes
    ]
    return with_sentences(columns, rows)


def _next(letter: dict[str, Any], history: ReplayHistory) -> str:
    if history.next_letter is not None:
        return Command(f"taskyard dlq show {history.next_letter}")
    if letter["status"] not in OPEN:
        return Command(f"taskyard jobs show {letter['original_request_id']}")
    command = f'taskyard dlq replay {letter["id"]} --reason "why it will work now"'
    match NEEDS[Category(letter["failure_category"])]:
        case Needs.A_NEW_JOB:
            return "enqueue the job again; no worker can read this message"
        case Needs.EDITED_PAYLOAD:
            return Command(f"{command} --payload @corrected.json")
        case Needs.FORCE:
            return Command(f"{command} --force")
        case Needs.NOTHING:
            return Command(command)
        case never:
            assert_never(never)


def _compact(value: object) -> str | None:
    return json_text(value, indent=None) if value else None


def _body(letter: dict[str, Any]) -> str | None:
    facts = letter.get("body")
    if facts is None:
        return None
    packed = (letter.get("headers") or {}).get("compression")
    how = f" compressed by {packed}" if packed else ""
    return f"{facts['bytes']} bytes{how}, sha256 {facts['sha256'][:16]}"
