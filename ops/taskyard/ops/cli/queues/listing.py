"""`taskyard queues list`: each work queue, what waits in it and how many workers consume it."""

from __future__ import annotations

from dataclasses import asdict

from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.place import find_place
from taskyard.ops.cli.queues.look import look
from taskyard.ops.cli.queues.unserved import start_worker

__all__ = ["command"]


def command(json: Json = False) -> None:
    """List the queues: what waits, and who consumes it.

    Waiting are messages at the broker; what a retry's backoff or a countdown holds back is not
    among them.
    """
    settings = find_place(quiet=json).settings
    states = look(settings)
    if json:
        print_json([asdict(state) for state in states])
        return
    rows = [
        (
            state.queue,
            _told(state.waiting),
            _told(state.consumers),
            f"1-{settings.queue(state.queue).priorities}",
        )
        for state in states
    ]
    put(table(("queue", "waiting", "workers", "priorities"), rows))
    for state in states:
        if state.unserved:
            start = start_worker(settings, state.queue)
            note(f"no worker consumes queue {state.queue!r}. Start one: {start}")


def _told(number: int | None) -> str:
    return "unknown" if number is None else str(number)
