"""`taskyard jobs reroute`: move jobs to another queue. Permitted, reasoned and audited.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from taskyard.control.live_verb import moved_to
from taskyard.jobs.states import Event
from taskyard.ops.cli.jobs.bulk_verb import BulkRequest, run_verb
from taskyard.ops.cli.jobs.chosen_jobs import LIMIT, Choice
from taskyard.ops.cli.jobs.verb_options import (
    Confirm,
    DryRun,
    Ids,
    OfDomain,
    OfState,
    OfType,
    Reason,
    Since,
)
from taskyard.ops.cli.options import Json, Limit

__all__ = ["command"]


def command(
    ids: Ids = None,
    queue: Annotated[
        str | None, typer.Option(help="The queue to which the jobs move; required.")
    ] = None,
    reason: Reason = None,
    state: OfState = None,
    job_type: OfType = None,
    from_queue: Annotated[
        str | None, typer.Option(help="Instead of ids: jobs in this queue.")
    ] = None,
    domain: OfDomain = None,
    since: Since = None,
    limit: Limit = LIMIT,
    confirm: Confirm = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Move jobs to another queue; a running attempt is killed.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Filters find live jobs of the ledger; their number must be confirmed. Waits up to 2 s for the
    outcomes; `pending` means that the message waits in the old queue until a worker takes it. The
    process of a running attempt is killed, and the job runs again from its new queue.
    """
    if queue is None:
        raise typer.BadParameter("expected the queue to which the jobs move: --queue QUEUE")
    choice = Choice(ids or (), state, job_type, from_queue, domain, since, limit)
    own, done = partial(_own, queue), f"moved to {queue}"
    request = BulkRequest(Event.REROUTE, "reroute", done, reason, confirm, dry_run, json, own)
    run_verb(choice, request)


def _own(queue: str, _job_id: str, _most: int) -> Mapping[str, Any]:
    return moved_to(queue)
