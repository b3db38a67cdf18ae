"""`taskyard queues purge`: cancel the jobs that wait in a queue, and remove their messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from time import monotonic
from typing import Annotated, Final

import typer
from rich.prompt import Prompt

from taskyard import database
from taskyard.control import PurgeCounts, PurgeOutcome, identify
from taskyard.control.purge_outcome import Drop, Keep, Waiting
from taskyard.control.purge_queue import count_waiting, purge_queue
from taskyard.install import AnyQueuePublisher
from taskyard.ops.cli.console import err, note, print_json, say
from taskyard.ops.cli.load_app import load_app
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["command"]

_EVERY_S: Final = 1.0

_DROPPED: Final[Mapping[Drop, str]] = {
    Drop.ENDED: "of jobs that had ended",
    Drop.STALE: "of jobs that had gone on with a later message",
    Drop.NO_JOB: "of no job",
}
_KEPT: Final[Mapping[Keep, str]] = {
    Keep.LATER: "came after the purge began",
    Keep.MOVED: "are of jobs that were moved to another queue; a worker forwards them",
    Keep.CONTINUES: "are of completed jobs; a worker publishes what follows them",
    Keep.LETTER: "are of dead letters that Postgres does not have yet; a worker publishes them",
    Keep.OUTSIDE: "are of jobs in queues outside your bounds",
    Keep.UNREADABLE: "are of jobs whose record cannot be used; see the log, or: taskyard reconcile",
    Keep.CHANGED: "are of jobs that changed meanwhile; run it again",
}


def command(
    queue: Annotated[str, typer.Argument(help="The queue; an installed app's too.")],
    reason: Annotated[str | None, typer.Option(help="Why; kept in the audit log.")] = None,
    delayed: Annotated[
        bool, typer.Option("--delayed", help="Also what waits for its time, to go there then.")
    ] = False,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:APP", help="The installed app, so that its result backend hears it."
        ),
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(help="The number of messages; more than these are refused.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the messages, and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Cancel each job that waits in a queue, then remove its message; each is audited.

    Needs an identity with the role admin: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine
    whose users you trust. Running jobs run on. What comes after the start stays; pause the queue
    first to have it empty. Repeat it after an interruption.
    """
    settings = find_target(quiet=json).settings
    with closing(connect(settings.need_redis_url())) as client:
        records = Records(client, settings)
        with closing(AnyQueuePublisher(settings, records)) as publisher:
            waiting = count_waiting(settings, publisher, queue)
            if dry_run:
                _show_waiting(waiting, json=json)
                return
            at_most = _confirmed(waiting, confirm)
            with database.opened(
                settings.need_database_url(), application_name="taskyard queues"
            ) as engine:
                outcome = purge_queue(
                    engine,
                    records,
                    publisher,
                    queue,
                    identity=identify(engine, settings),
                    reason=reason,
                    at_most=at_most,
                    delayed=delayed,
                    app=None if app is None else load_app(app),
                    progress=None if json else _progress(waiting.messages),
                )
    if json:
        print_json(outcome.document())
        return
    _show(outcome)
    _note_results(settings, queue, app, outcome)


def _show_waiting(waiting: Waiting, *, json: bool) -> None:
    if json:
        facts = {"queue": waiting.queue, "waiting": waiting.messages}
        print_json({**facts, "delayed": waiting.delayed})
        return
    later = "an unknown number" if waiting.delayed is None else str(waiting.delayed)
    say(
        f"{_messages(waiting.messages)} in queue {waiting.queue}; with --delayed also "
        f"{later} that wait for their time"
    )


def _confirmed(waiting: Waiting, given: int | None) -> int:
    """Return the number that the operator names; a person at a terminal is asked."""
    count = waiting.messages
    if given is None and sys.stdin.isatty():
        text = f"Type {count} to purge {_messages(count)} of queue {waiting.queue}"
        answer = Prompt.ask(text, console=err())
        given = int(answer) if answer.strip().isdecimal() else -1
    if given is None or given < 0:
        raise typer.BadParameter(
            f"{_messages(count)} in queue {waiting.queue}. Repeat the command with "
            f"--confirm {count}",
            param_hint="--confirm",
        )
    return given


def _progress(total: int) -> Callable[[PurgeCounts], None]:
    last_s = monotonic()

    def show(counts: PurgeCounts) -> None:
        nonlocal last_s
        if monotonic() - last_s >= _EVERY_S:
            last_s = monotonic()
            note(
                f"looked at {counts.looked_at}, at the start {total}: {counts.cancelled} jobs "
                f"cancelled, {counts.removed} messages removed"
            )

    return show


def _show(outcome: PurgeOutcome) -> None:
    counts = outcome.counts
    say(
        f"{counts.cancelled} jobs cancelled, {counts.removed} messages removed from queue "
        f"{outcome.queue}; {outcome.remaining} are there now",
        "green" if not outcome.remaining else "yellow",
    )
    for drop, text in _DROPPED.items():
        _line(counts.dropped[drop], f"of the removed were {text}")
    for keep, text in _KEPT.items():
        _line(counts.kept[keep], f"messages stay: they {text}")
    _line(
        counts.taken, "messages were taken by a worker meanwhile; it skips those of cancelled jobs"
    )
    _line(counts.asked, "jobs run, and were asked to stop: taskyard audit list")
    _line(counts.left, "of the cancelled jobs get a reply or the end of an attempt from the relay")
    _line(counts.not_removed, "cancelled jobs wait at RabbitMQ for their time; a worker skips them")
    say(f"See: taskyard audit show {outcome.request_id}")


def _line(count: int, text: str) -> None:
    if count:
        say(f"{count} {text}")


def _note_results(settings: Settings, queue: str, app: str | None, outcome: PurgeOutcome) -> None:
    if app is None and queue not in settings.queues and outcome.counts.cancelled:
        note(
            "the app's own result backend was not written to, so callers that wait there hear "
            "nothing. Name the app to have it written: --app MODULE:APP"
        )


def _messages(count: int) -> str:
    return f"{count} message" + "s" * (count != 1)
