"""`taskyard jobs cancel`: cancel jobs, wherever they are. Permitted, reasoned and audited.

Alone because each command has a file of its own.
"""

from __future__ import annotations

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

__all__ = ["command"]


def command(
    ids: Ids = None,
    reason: Reason = None,
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
    """Cancel jobs: one that waits does not begin, a running one is asked to stop.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Filters find live jobs of the ledger; their number must be confirmed. Waits up to 2 s for the
    outcomes; `pending` means that the relay will carry it out, or that an attempt must end first.
    """
    choice = Choice(ids or (), state, job_type, queue, domain, since, limit)
    run_verb(
        choice, BulkRequest(Event.CANCEL, "cancel", "cancelled", reason, confirm, dry_run, json)
    )
