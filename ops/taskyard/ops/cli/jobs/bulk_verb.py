"""A verb on live jobs: choose them, confirm their number, request, and show each outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import typer
from rich.text import Text
from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.control import VerbOutcome, VerbRequested, identify, reader_of
from taskyard.control.live_verb import answers, request_verb
from taskyard.errors import InvalidPayload, NotPermitted, Refused
from taskyard.jobs.states import Event
from taskyard.ops.cli.console import print_json, print_sentence, say
from taskyard.ops.cli.jobs.chosen_jobs import Choice, choose, confirm, show_preview
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.visible_text import one_line
from taskyard.outbox import is_bulk
from taskyard.records import Records
from taskyard.store import connect

__all__ = ["BulkRequest", "run_verb"]

_OUTCOMES: Final = {"applied": "green", "pending": "yellow", "refused": "red"}
_WIDTH: Final = 8
_SHOWN: Final = ("job_id", "outcome", "why", "attempt", "request_id")


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What the operator wants; `word` is the command's name, `done` what a job becomes by it.

    `own` returns the verb's own arguments for a job id and the limit of a result in bytes.
    """

    event: Event
    word: str
    done: str
    reason: str | None
    confirmed: int | None
    dry_run: bool
    json: bool
    own: Callable[[str, int], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """One job's outcome; `exit_code` is 0 unless it was refused."""

    job_id: str
    outcome: str
    why: str
    attempt: str
    request_id: str | None
    exit_code: int


def run_verb(choice: Choice, bulk: BulkRequest) -> None:
    """Carry the verb out on each chosen job, and exit with the first refusal's code."""
    settings = find_target(quiet=bulk.json).settings
    with (
        closing(connect(settings.need_redis_url())) as client,
        database.opened(settings.need_database_url(), application_name="taskyard jobs") as engine,
    ):
        records = Records(client, settings)
        jobs = choose(settings, engine, records, choice, reader_of(engine, settings))
        if bulk.dry_run:
            show_preview(jobs, json=bulk.json)
            return
        if choice.filters:
            if not bulk.json:
                show_preview(jobs, json=False)
            confirm(len(jobs), bulk.confirmed, bulk.word)
        identity = identify(engine, settings)
        lines = _act(engine, records, identity, jobs, bulk)
    _show(lines, bulk)
    failed = [line.exit_code for line in lines if line.exit_code]
    if failed:
        raise typer.Exit(failed[0])


def _act(
    engine: Engine,
    records: Records,
    identity: Identity,
    jobs: Sequence[Mapping[str, Any]],
    bulk: BulkRequest,
) -> list[_Line]:
    """Request the verb for all jobs, then wait for their outcomes together.

    A missing right ends the command only while nothing was requested: later it is one job's
    outcome, so that the operator reads what became of the others.
    """
    alone, many = len(jobs) == 1, is_bulk(len(jobs))
    requested, refused = [], []  # type: list[VerbRequested], list[_Line]
    for job in jobs:
        request = _request(engine, records, identity, str(job["job_id"]), bulk, many=many)
        if isinstance(request, VerbRequested):
            requested.append(request)
        elif alone or (isinstance(request, NotPermitted) and not requested):
            raise request
        else:
            line = _Line(job["job_id"], "refused", str(request), "", None, request.exit_code)
            refused.append(line)
    return [*map(_line, answers(engine, requested)), *refused]


def _request(
    engine: Engine,
    records: Records,
    identity: Identity,
    job_id: str,
    bulk: BulkRequest,
    *,
    many: bool,
) -> VerbRequested | Refused | InvalidPayload | NotPermitted:
    most = records.settings.max_result_bytes
    try:
        return request_verb(
            engine,
            records,
            job_id,
            bulk.event,
            identity=identity,
            reason=bulk.reason,
            own=None if bulk.own is None else partial(bulk.own, job_id, most),
            bulk=many,
        )
    except (Refused, InvalidPayload, NotPermitted) as error:
        return error


def _line(outcome: VerbOutcome) -> _Line:
    code = Refused.exit_code if outcome.outcome == "refused" else 0
    request = str(outcome.request_id)
    return _Line(outcome.job_id, outcome.outcome, outcome.why, outcome.attempt, request, code)


def _show(lines: Sequence[_Line], bulk: BulkRequest) -> None:
    counts = Counter(line.outcome for line in lines)
    if bulk.json:
        jobs = [
            {
                name: getattr(line, name)
                for name in ("job_id", "outcome", "why", "attempt", "request_id")
            }
            for line in lines
        ]
        print_json({**{name: counts[name] for name in _OUTCOMES}, "jobs": jobs})
        return
    for line in lines:
        print_sentence(_sentence(line, bulk.done))
    if len(lines) > 1:
        say(", ".join(f"{counts[name]} {name}" for name in _OUTCOMES))


def _sentence(line: _Line, done: str) -> Text:
    text = Text(f"{line.outcome:<{_WIDTH}}", style=_OUTCOMES[line.outcome])
    text.append(f" {one_line(line.job_id)}", style="bold")
    text.append(f": {one_line(line.why) if line.why else done}")
    if line.attempt:
        text.append(f"; its attempt {line.attempt}")
    if line.outcome == "pending":
        text.append(f". See: taskyard audit show {line.request_id}")
    return text
