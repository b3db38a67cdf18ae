"""`taskyard jobs abort`: end jobs by force, wherever they are. Permitted, reasoned and audited.

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
    """Abort jobs: one that waits does not begin, a running one is killed.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Filters find live jobs of the ledger; their number must be confirmed. Waits up to 2 s for the
    outcomes. A pool of threads cannot stop an attempt: its outcome is dropped, as the line says.
    """
    choice = Choice(ids or (), state, job_type, queue, domain, since, limit)
    run_verb(choice, BulkRequest(Event.ABORT, "abort", "aborted", reason, confirm, dry_run, json))
