"""`taskyard jobs show`: record and ledger of a job, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from taskyard.clock import SYSTEM_CLOCK, from_us
from taskyard.errors import TaskyardError
from taskyard.inspection.job_holder import JobHolder
from taskyard.inspection.message_after_worker_death import Place
from taskyard.inspection.queue_counts import QueueState
from taskyard.jobs.attempt_outcomes import cause_summary
from taskyard.jobs.states import LIVE, TERMINAL, State
from taskyard.ops.cli.console import (
    Command,
    print_json,
    put,
    put_facts,
    say,
    table,
    with_priority,
    with_sentences,
)
from taskyard.ops.cli.ids import read_ids
from taskyard.ops.cli.jobs.record_and_ledger import JobView, look_up
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.queues.no_consumer_text import NO_WORKER
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age, moment
from taskyard.records import Records
from taskyard.store import connect
from taskyard.wire.redaction import redact, redact_text

__all__ = ["command"]


def command(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ],
    json: Json = False,
) -> None:
    """Show all that is known about a job.

    The live record comes from Redis, the history from Postgres; a server that does not answer
    leaves its part unknown.
    """
    settings = find_target(quiet=json).settings
    # A person waits, and much is known without the records.
    records = Records(connect(settings.need_redis_url(), retries=1), settings)
    views = [look_up(settings, records, name) for name in read_ids(jobs)]
    if json:
        documents = [redact(view.document()) for view in views]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for view in views:
        put_facts(_facts(view))
        say("")
        put(_history(view))
        if view.state in LIVE:
            say("")
            say(f"Why it is where it is: taskyard explain {view.job_id}")


def _facts(view: JobView) -> Iterator[tuple[str, object]]:
    record = view.record
    priority = view.fact("priority")
    yield "job", view.job_id
    yield "type", view.fact("job_type")
    yield "domain", view.fact("domain")
    yield "queue", with_priority(view.fact("queue"), priority)
    yield "state", view.state.value + _by_whom(view)
    yield "operator", _request(view)
    yield "record", view.record_unknown and f"unknown ({view.record_unknown})"
    yield "ledger", _ledger(view)
    yield "attempts", _attempts(view)
    yield "replays", view.generation or None
    yield "admitted", moment(view.admitted_at)
    yield "progress", _progress(record.progress)
    yield "cause", _cause(record.cause) or (view.outage and view.fact("code"))
    yield "letter", view.letter
    yield "workers", _workers(view)
    yield "lease", _lease(view.holder)
    yield "message", _message(view)
    yield "next", view.next and Command(view.next)


def _request(view: JobView) -> str | None:
    """Return what an operator has requested and the job has still to meet."""
    if view.pending_request is None:
        return None
    if view.state is State.REROUTED:
        return f"has moved it to {view.fact('queue')}; its message follows when it is taken"
    return "has asked its attempt to stop; how that ends decides"


def _attempts(view: JobView) -> object:
    if view.attempts is None and view.ledger.unknown is not None:
        return "unknown (only the ledger has the attempts of an ended job)"
    return view.attempts


def _workers(view: JobView) -> str | None:
    match view.place:
        case None:
            return None
        case QueueState(consumers=0):
            return f"none: {NO_WORKER}"
        case QueueState(consumers=int() as consumers):
            return f"{consumers} consume{'s' * (consumers == 1)} this queue"
        case QueueState(told_at=datetime() as told_at):
            ago = age(told_at, SYSTEM_CLOCK.now())
            return f"unknown (a worker of the app consumed it {ago} ago)"
        case QueueState():
            return "unknown (some worker does not say what it consumes)"
        case TaskyardError() as error:
            return f"unknown ({error})"


def _lease(holder: JobHolder | None) -> str | None:
    """Describe the lease of a running job."""
    if holder is None or holder.lease_until is None:
        return None
    if not holder.expired and holder.orphaned:
        until = moment(holder.lease_until)
        return f"until {until}, and not renewed: worker {holder.worker} is dead"
    if not holder.expired:
        return f"until {moment(holder.lease_until)}, renewed by {holder.worker}"
    ago = age(holder.lease_until, SYSTEM_CLOCK.now())
    alive = "lives" if holder.worker_lives else "is dead"
    return f"expired {ago} ago, {moment(holder.lease_until)}; worker {holder.worker} {alive}"


def _message(view: JobView) -> str | None:
    """Return where the message is, if a dead worker had taken it, and what happens next."""
    holder = view.holder
    if holder is None or holder.message is None or holder.message.place is not Place.RABBITMQ:
        return None if holder is None else holder.sentence
    # RabbitMQ returns what a dead worker had; its counts say whether another worker has it now.
    runs = "runs the job" if holder.expired else "runs the job after the lease"
    queue = view.fact("queue")
    match view.place:
        case QueueState(waiting=0, consumers=int() as consumers) if consumers:
            return f"RabbitMQ returned it to queue {queue!r}; another worker has it, and {runs}"
        case QueueState(waiting=int() as waiting):
            return (
                f"RabbitMQ returned it to queue {queue!r}, where {waiting} "
                f"wait{'s' * (waiting == 1)}; the worker that takes it {runs}"
            )
        case TaskyardError() as error:
            return f"unknown: {error}"
        case _:
            return holder.sentence


def _by_whom(view: JobView) -> str:
    """Return where the state comes from, if it does not come from the record."""
    if view.outage is not None:
        return "  (from the ledger, which may be behind)"
    return " (the record has expired)" if view.record.state is State.NONE else ""


def _ledger(view: JobView) -> str:
    if view.ledger.unknown is not None:
        return f"unknown ({view.ledger.unknown})"
    if view.ledger.row is None:
        return "has no row of it yet (the mirror may be behind)"
    state = str(view.ledger.row["state"])
    return state if state == view.state else f"{state} (behind the record)"


def _cause(cause: dict[str, Any]) -> str | None:
    return redact_text(f"{cause.get('code')}: {cause_summary(cause)}") if cause else None


def _progress(progress: dict[str, Any]) -> str | None:
    if not progress:
        return None
    return f"{progress['fraction']:.0%} {progress.get('note', '')}".strip()


def _history(view: JobView) -> RenderableType:
    if not view.ledger.events:
        return _failed_attempts(view)
    columns = ("at", "event", "state", "attempt", "worker", "detail")
    rows = []
    for event in view.ledger.events:
        detail = event["detail"]
        rows.append(
            (
                moment(event["at"]),
                event["event"],
                event["state"],
                detail.get("attempt"),
                detail.get("worker"),
                _detail(detail),
            )
        )
    return with_sentences(columns, rows)


def _detail(detail: dict[str, Any]) -> str:
    said = [str(detail[name]) for name in ("code", "error", "by", "outcome") if detail.get(name)]
    return redact_text(": ".join(said))


def _failed_attempts(view: JobView) -> RenderableType:
    columns = ("ended", "attempt", "worker", "outcome", "error")
    rows = [
        (
            moment(from_us(note.ended_us)),
            note.attempt,
            note.worker,
            note.outcome,
            redact_text(f"{note.code}: {note.error}"),
        )
        for note in view.record.history
    ]
    if rows:
        return table(columns, rows, title="failed attempts")
    if view.ledger.unknown is not None and view.state in TERMINAL:
        return Text("failed attempts are unknown: Postgres, which has the history, does not answer")
    return Text("no failed attempt")
