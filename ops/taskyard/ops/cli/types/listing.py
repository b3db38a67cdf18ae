"""`taskyard types list`: the job types and how they retry, one per line."""

from __future__ import annotations

from taskyard.jobs import JobType, RetryPolicy
from taskyard.jobs.retry_policy import Backoff
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.types.field_origins import Known, known_types
from taskyard.ops.cli.types.policy import waits_ms

__all__ = ["command"]


def command(json: Json = False) -> None:
    """List the job types and how they retry.

    From the built-in file, the files of TASKYARD_JOB_TYPES and the decorators of this machine.
    """
    types, why_unknown = known_types(find_target(quiet=json).settings)
    if json:
        print_json([_document(known) for known in types.values()])
        return
    columns = ("type", "queue", "retries", "waits", "limit", "handler")
    rows = [_row(known.job_type, known.handler) for known in types.values()]
    put(table(columns, rows))
    if why_unknown is not None:
        note(f"handlers are unknown: {why_unknown}")
    note("to see one in full: taskyard types show NAME")


def _row(job_type: JobType, handler: str | None) -> tuple[object, ...]:
    return (
        job_type.name,
        job_type.queue,
        job_type.policy.max_retries,
        waits(job_type.policy),
        f"{job_type.time_limit_s:g} s",
        "here" if handler is not None else "none here",
    )


def waits(policy: RetryPolicy) -> str:
    """Describe the waits before the first retries, such as `up to 1, 2, 4 s`."""
    if policy.max_retries == 0:
        return "no retry"
    if policy.backoff_strategy is Backoff.IMMEDIATE:
        return "none"
    shown = waits_ms(policy)
    more = " ..." if policy.max_retries > len(shown) else ""
    text = ", ".join(f"{wait / 1000:g}" for wait in shown)
    return f"{'up to ' if policy.jitter else ''}{text}{more} s"


def _document(known: Known) -> dict[str, object]:
    return {**known.job_type.model_dump(mode="json"), "handler": known.handler}
