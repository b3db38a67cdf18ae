"""`taskyard jobs wait`: wait until a job has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from taskyard.client import JobHandle, Taskyard
from taskyard.errors import DeadLettered, JobFailed, NotFound, ResultTimeout
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.ids import read_ids
from taskyard.ops.cli.jobs.find_job_by_id import find_job
from taskyard.ops.cli.options import Json, wait_seconds
from taskyard.ops.cli.queues.no_consumer_text import warn_if_unserved
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.visible_text import json_text, one_line

__all__ = ["DEFAULT_TIMEOUT_S", "command", "result_text"]

DEFAULT_TIMEOUT_S: Final = 300.0


def command(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ],
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for each job.", callback=wait_seconds)
    ] = DEFAULT_TIMEOUT_S,
    replay: Annotated[
        bool, typer.Option("--replay", help="Continue to wait while a job is a dead letter.")
    ] = False,
    json: Json = False,
) -> None:
    """Wait for a job's end and print its result.

    Exit code 8 for a job that ended without a result, 7 if it did not end in time.
    """
    settings = find_target(quiet=json).settings
    with Taskyard(settings) as yard:
        handles = [yard.job(find_job(settings, yard.records, name)) for name in read_ids(jobs)]
        if not json:
            for handle in handles:
                warn_if_unserved(settings, handle.record())
        if len(handles) == 1:
            _one(handles[0], timeout, replay=replay, json=json)
        else:
            _many(handles, timeout, replay=replay, json=json)


def _one(handle: JobHandle, timeout: float, *, replay: bool, json: bool) -> None:
    result = handle.result(timeout, wait_for_replay=replay)
    if json:
        print_json({"job_id": handle.job_id, "state": handle.state(), "result": result})
    else:
        say(result_text(result))


def _many(handles: Sequence[JobHandle], timeout: float, *, replay: bool, json: bool) -> None:
    """Wait for several jobs: one failure does not stop the others; the first sets the exit code."""
    ended, codes = [], []
    for handle in handles:
        document: dict[str, Any] = {"job_id": handle.job_id}
        try:
            document["result"] = handle.result(timeout, wait_for_replay=replay)
        except (DeadLettered, JobFailed, NotFound, ResultTimeout) as error:
            document["error"] = str(error)
            codes.append(error.exit_code)
        document["state"] = handle.state()
        ended.append(document)
        if not json:
            say(one_line(f"{handle.job_id} {document['state']} {document.get('error', '')}"))
    if json:
        print_json(ended)
    if codes:
        raise typer.Exit(codes[0])


def result_text(result: Any) -> str:
    """Return a result for people: JSON, indented."""
    return json_text(result)
