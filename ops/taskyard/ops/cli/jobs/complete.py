"""`taskyard jobs complete`: complete jobs by hand, with a result. Permitted, reasoned and audited.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from taskyard.control.forced_result import forced_result
from taskyard.jobs.states import Event
from taskyard.ops.cli.jobs.bulk_verb import BulkRequest, run_verb
from taskyard.ops.cli.jobs.chosen_jobs import LIMIT, Choice
from taskyard.ops.cli.jobs.verb_options import (
    Confirm,
    DryRun,
    Ids,
    OfDomain,
    OfQueue,
    OfState,
    OfType,
    Reason,
    Since,
)
from taskyard.ops.cli.options import Json, Limit
from taskyard.ops.cli.payload import read_payload

__all__ = ["command"]


def command(
    ids: Ids = None,
    reason: Reason = None,
    summary: Annotated[
        str | None, typer.Option(help="How the job was resolved; kept in the audit log.")
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(help="The job's result: JSON, @FILE, or - for stdin; default null."),
    ] = None,
    state: OfState = None,
    job_type: OfType = None,
    queue: OfQueue = None,
    domain: OfDomain = None,
    since: Since = None,
    limit: Limit = LIMIT,
    confirm: Confirm = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Complete jobs by hand, with a result for their callers.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Filters find live jobs of the ledger; their number must be confirmed. Waits up to 2 s for the
    outcomes. The callers get the result as if a worker had returned it.
    The process of a running attempt is killed. A chain goes on with the result.
    """
    value = None if result is None else read_payload(result)
    choice = Choice(ids or (), state, job_type, queue, domain, since, limit)
    own = partial(forced_result, summary=summary, result=value)
    request = BulkRequest(
        Event.FORCE_COMPLETE, "complete", "completed", reason, confirm, dry_run, json, own
    )
    run_verb(choice, request)
