"""`taskyard explain`: why a job is where it is, and the command that would move it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Final

import typer
from rich.text import Text
from sqlalchemy import Engine

from taskyard import database
from taskyard.control import reader_of
from taskyard.control.explain import Cause, Explanation, explain
from taskyard.control.explain.read_facts import ANSWER_S
from taskyard.errors import NotFound, ServerRefused, ServerUnreachable
from taskyard.jobs.states import State
from taskyard.ops.cli.console import print_json, print_sentence, put_facts, say, with_priority
from taskyard.ops.cli.error_output import UNREACHABLE
from taskyard.ops.cli.ids import read_ids
from taskyard.ops.cli.jobs.find_job_by_id import (
    MINIMUM_PREFIX,
    find_in_ledger,
    find_job,
)
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.visible_text import clean
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect, reachable
from taskyard.wire.redaction import redact

__all__ = ["command"]

_REDIS: Final = "Redis"  # how errors name the records' server
# Shorter names may be the first characters of an id, which are searched.
_WHOLE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARGIN: Final = "   "


def command(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ],
    json: Json = False,
) -> None:
    """Say why a job is where it is, and the command that would move it.

    All causes are listed, the blocking one first. A server that does not answer leaves its part
    unknown. It changes nothing. Exit code 4 for an unknown id; 3 if it is unknown where the job is.
    """
    settings = find_target(quiet=json).settings
    with _engine(settings) as engine:
        reader = None if engine is None else reader_of(engine, settings)
        answers = [
            explain(settings, _whole_id(settings, name), engine=engine, reader=reader)
            for name in read_ids(jobs)
        ]
    if json:
        documents = [redact(answer.document()) for answer in answers]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        for number, answer in enumerate(answers):
            if number:
                say("")
            _print(answer)
    codes = [code for answer in answers if (code := _exit_code(answer))]
    if codes:
        raise typer.Exit(codes[0])


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine | None]:
    """Connect to Postgres once for all jobs; without its URL that part is unknown."""
    if settings.database_url is None and settings.token is None:
        yield None
        return
    url = settings.need_database_url()
    with database.opened(url, application_name="taskyard explain") as engine:
        yield engine


def _exit_code(answer: Explanation) -> int:
    if not answer.found:
        return NotFound.exit_code
    return UNREACHABLE if answer.state is None else 0


def _whole_id(settings: Settings, name: str) -> str:
    """Return the job's id; a whole one that no server knows is explained too.

    Raises `NotFound` for a name that is too short, and `Refused` for one that fits several jobs.
    """
    url = settings.need_redis_url()
    with closing(connect(url, retries=0, timeout_s=ANSWER_S)) as client:
        records = Records(client, settings)
        try:
            with reachable(url):
                known = records.read(name).state is not State.NONE
            if known or _WHOLE.fullmatch(name):
                return name
            return find_job(settings, records, name)
        except NotFound:
            if len(name) < MINIMUM_PREFIX:
                raise
            return name
        except (ServerUnreachable, ServerRefused) as error:
            in_ledger = error.role == _REDIS and len(name) >= MINIMUM_PREFIX
            return (find_in_ledger(settings, name) if in_ledger else None) or name


def _print(answer: Explanation) -> None:
    put_facts(
        [
            ("job", answer.job_id),
            ("type", answer.job_type),
            ("queue", with_priority(answer.queue, answer.priority)),
            ("state", answer.state or "unknown"),
        ]
    )
    for number, cause in enumerate(answer.causes, 1):
        say("")
        _print_cause(number, cause)


def _print_cause(number: int, cause: Cause) -> None:
    sentence = clean(f"{number}. {cause.text[:1].upper()}{cause.text[1:]}")
    end = "" if sentence.endswith((".", "?", "!")) else "."
    print_sentence(Text(sentence + end, style="bold" if number == 1 else ""), len(_MARGIN))
    if cause.waits:
        waits = clean(f"{_MARGIN}{cause.waits[:1].upper()}{cause.waits[1:]}.")
        print_sentence(Text(waits, style="dim"), 0)
    for command_line in cause.commands:
        say(f"{_MARGIN}run  {command_line}")
    if cause.see:
        say(f"{_MARGIN}see  {cause.see}")
