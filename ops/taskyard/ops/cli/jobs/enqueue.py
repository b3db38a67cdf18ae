"""`taskyard jobs enqueue`: one job from the shell."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from taskyard.client import JobHandle, Taskyard
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.jobs.wait import DEFAULT_TIMEOUT_S, result_text
from taskyard.ops.cli.local_handlers import load_handlers
from taskyard.ops.cli.options import Json, wait_seconds
from taskyard.ops.cli.payload import read_payload
from taskyard.ops.cli.queues.no_consumer_text import warn_if_unserved
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type's name.")],
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD", help="JSON, @FILE with JSON, or - for stdin.")
    ],
    queue: Annotated[
        str | None, typer.Option(help="Queue to use instead of the type's own.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="From 1 to the queue's highest, which is the most urgent.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same key gives the same job.")
    ] = None,
    countdown: Annotated[
        float | None, typer.Option(help="Seconds before the job may start.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    timeout: Annotated[
        float, typer.Option(help="How many seconds --wait waits at most.", callback=wait_seconds)
    ] = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Enqueue one job and print its id.

    When it returns, the broker has the message.
    """
    body = read_payload(payload)
    settings = find_target(quiet=json).settings
    # A decorator may define the type, and an annotation its payload.
    for failure in load_handlers(settings):
        note(failure)
    with Taskyard(settings) as yard:
        handle = yard.enqueue(
            job_type,
            body,
            queue=queue,
            priority=priority,
            idempotency_key=key,
            countdown=countdown,
        )
        if not json:
            say(f"{handle.job_id} {'created' if handle.created else 'existed already'}")
        if wait and not json:
            warn_if_unserved(settings, handle.record())
        result = handle.result(timeout) if wait else None
        if json:
            print_json(_document(handle, result, wait=wait))
        elif wait:
            say(result_text(result))


def _document(handle: JobHandle, result: Any, *, wait: bool) -> dict[str, Any]:
    document = {"job_id": handle.job_id, "created": handle.created, "state": handle.state()}
    return {**document, "result": result} if wait else document
