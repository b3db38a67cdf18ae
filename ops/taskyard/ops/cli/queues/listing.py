"""`taskyard queues list`: each work queue, what waits in it and how many workers consume it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from taskyard import database
from taskyard.access import Identity
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import reader_of
from taskyard.errors import TaskyardError
from taskyard.inspection.count_app_queues import look_at_apps
from taskyard.inspection.queue_counts import QueueState, look
from taskyard.inspection.queue_of_job import start_worker
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.listing import read_switches
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age
from taskyard.settings import Settings
from taskyard.switches import SwitchesRead, fields_of

__all__ = ["command"]


def _reader(settings: Settings) -> Identity | None:
    """Return the bearer of `TASKYARD_TOKEN`, which Postgres verifies; None without a token."""
    if settings.token is None:
        return None
    with database.opened(settings.need_database_url()) as engine:
        return reader_of(engine, settings)


def command(json: Json = False) -> None:
    """List the queues: how many jobs wait, and how many workers consume them.

    Waiting are messages at the broker; a job that waits for its backoff or countdown is not
    counted. Queues of installed apps are listed as their workers announce them. Switches are the
    pauses and kill switches that are on for the whole queue.
    """
    settings = find_target(quiet=json).settings
    reader = _reader(settings)
    states = [
        state
        for state in look(settings) + _of_apps(settings)
        if reader is None or reader.sees(state.queue, None)
    ]
    read = read_switches(settings)
    if json:
        print_json([{**asdict(state), "switches": _on(state.queue, read)} for state in states])
        return
    now = SYSTEM_CLOCK.now()
    rows = [
        (
            state.queue,
            "unknown" if state.waiting is None else str(state.waiting),
            _workers(state, now),
            "the app's" if state.app else f"1-{settings.queue(state.queue).priorities}",
            "an app" if state.app else "settings",
            _held(state.queue, read),
        )
        for state in states
    ]
    put(table(("queue", "waiting", "workers", "priorities", "of", "switches"), rows))
    for state in states:
        if state.unserved:
            start = start_worker(settings, state.queue)
            note(f"no worker consumes queue {state.queue!r}. Start one: {start}")


def _on(queue: str, read: SwitchesRead | None) -> list[str] | None:
    """Return the switches that are on for the whole queue, None if they are unknown."""
    if read is None:
        return None
    # Without a type and a domain: switches on those do not hold the whole queue.
    met = fields_of(queue, "", None)
    return [f"{field} ({on.mode})" for field, on in read.in_force().items() if field in met]


def _held(queue: str, read: SwitchesRead | None) -> str:
    on = _on(queue, read)
    return "unknown" if on is None else ", ".join(on)


def _of_apps(settings: Settings) -> list[QueueState]:
    """Return the queues that installed apps announced.

    If that cannot be read a line says so, also with JSON.
    """
    try:
        return look_at_apps(settings)
    except TaskyardError as error:
        note(f"the queues of installed apps are unknown: {error}")
        return []


def _workers(state: QueueState, now: datetime) -> str:
    if state.consumers is not None:
        return str(state.consumers)
    return "unknown" if state.told_at is None else f"reported {age(state.told_at, now)} ago"
