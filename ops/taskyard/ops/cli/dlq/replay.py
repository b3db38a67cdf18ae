"""`taskyard dlq replay`: send dead letters back to their queues.

Permitted, reasoned and audited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.text import Text
from sqlalchemy import Engine

from taskyard import database
from taskyard.control import KnownTypes, identify
from taskyard.jobs import Catalogue, registry
from taskyard.ops.cli.console import note, print_json, print_sentence, say
from taskyard.ops.cli.dlq.replay_letter import Replay, ReplayRequest, ReplayStatus, replay_one
from taskyard.ops.cli.ids import read_ids
from taskyard.ops.cli.local_handlers import load_handlers
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.payload import read_edit
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.visible_text import one_line
from taskyard.outbox import is_bulk
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["LIMIT", "command"]

# A person has read and decided about each letter; more than this many need a plan.
LIMIT: Final = 100
_STYLES: Final = {
    ReplayStatus.APPLIED: "green",
    ReplayStatus.PENDING: "yellow",
    ReplayStatus.REFUSED: "red",
}


def command(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ],
    reason: Annotated[
        str | None, typer.Option(help="Why it will work now; kept in the audit log.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Queue to use instead of the original one.")
    ] = None,
    payload: Annotated[
        str | None, typer.Option(help="A corrected payload: JSON, @FILE, or - for stdin.")
    ] = None,
    args: Annotated[
        str | None,
        typer.Option(help="For a task of an existing app: all positional arguments, a JSON list."),
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(help="The same for named arguments, a JSON object.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also if it expired or is marked as not eligible.")
    ] = False,
    json: Json = False,
) -> None:
    """Send dead letters back to their queues.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Waits up to 2 s for each outcome; `pending` means that the relay will carry it out.
    """
    names = _within_limit(read_ids(ids))
    settings = find_target(quiet=json).settings
    if queue is not None:
        settings.queue(queue)
    edit = read_edit(payload, args, kwargs)
    known = None if edit is None else known_types(settings)
    url = settings.need_database_url()
    with (
        database.opened(url, application_name="taskyard dlq") as engine,
        _records(settings) as records,
    ):
        request = ReplayRequest(
            identify(engine, settings),
            reason,
            queue,
            edit,
            force=force,
            known=known,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            records=records,
            bulk=is_bulk(len(names)),
        )
        done = _replay_all(engine, names, request, quiet=json)
    counts = Counter(replay.verdict for replay in done)
    if json:
        totals = {status.value: counts[status] for status in ReplayStatus}
        print_json({**totals, "letters": [asdict(replay) for replay in done]})
    elif len(done) > 1:
        say(", ".join(f"{counts[status]} {status}" for status in ReplayStatus))
    failed = [replay.exit_code for replay in done if replay.exit_code]
    if failed:
        raise typer.Exit(failed[0])


@contextmanager
def _records(settings: Settings) -> Iterator[Records | None]:
    """Yield the records; None where no setting says where they are. They are not needed."""
    if settings.redis_url is None:
        yield None
        return
    with closing(connect(settings.redis_url)) as client:
        yield Records(client, settings)


def _replay_all(
    engine: Engine, names: Sequence[str], request: ReplayRequest, *, quiet: bool
) -> Sequence[Replay]:
    """Replay one after another; with more than one, a refusal does not stop the rest."""
    done = []
    for name in names:
        done.append(replay_one(engine, name, request, alone=len(names) == 1))
        if not quiet:
            _print(done[-1])
    return done


def _within_limit(names: list[str]) -> list[str]:
    if len(names) > LIMIT:
        raise typer.BadParameter(
            f"expected at most {LIMIT} letters at once, got {len(names)}: each must be checked by "
            f"a person. Replay a few, see that they complete (taskyard jobs wait), then replay "
            f"the next ones",
            param_hint="ID...",
        )
    return names


def _print(replay: Replay) -> None:
    line = Text(f"{replay.verdict:<8}", style=_STYLES[replay.verdict])
    line.append(f" {one_line(replay.letter)}", style="bold")
    if replay.why:
        line.append(f": {one_line(replay.why)}")
    if replay.job_id is not None:
        # Until the relay has carried it out, the job is still a dead letter.
        wait = "wait --replay" if replay.verdict is ReplayStatus.PENDING else "wait"
        line.append(f". See: taskyard jobs {wait} {one_line(replay.job_id)}")
    print_sentence(line)
    if replay.payload_checked is False:
        note(
            "the arguments it takes are not known here: arguments that do not fit will fail in the "
            "worker"
        )


def known_types(settings: Settings) -> KnownTypes:
    """The catalogue, and the handlers that are installed here; those of workers may be more.

    An operator's machine needs no handler: where they cannot be imported a line says why.
    """
    for failure in load_handlers(settings):
        note(f"the payload is checked without some handlers: {failure}")
    return KnownTypes(registry.under(Catalogue.of(settings)), registry)
