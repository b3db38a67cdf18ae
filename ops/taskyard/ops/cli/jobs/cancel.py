"""`taskyard jobs cancel`: cancel jobs, wherever they are. Permitted, reasoned and audited.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from typing import Annotated

import typer

from taskyard.jobs.states import Event, State
from taskyard.ops.cli.jobs.bulk_verb import Wish, run_verb
from taskyard.ops.cli.jobs.chosen_jobs import LIMIT, Choice
from taskyard.ops.cli.options import Json, Limit

__all__ = ["command"]


def command(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the audit log.")] = None,
    state: Annotated[State | None, typer.Option(help="Instead of ids: jobs in this state.")] = None,
    job_type: Annotated[
        str | None, typer.Option("--type", help="Instead of ids: this job type.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Instead of ids: this queue.")] = None,
    domain: Annotated[
        str | None, typer.Option(help="Instead of ids: job types of this domain.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Instead of ids: changed since 15m, 2h, 7d, or a time.")
    ] = None,
    limit: Limit = LIMIT,
    confirm: Annotated[
        int | None, typer.Option(help="The number of jobs that the filters match.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which jobs are meant, and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Cancel jobs: one that waits does not begin, a running one is asked to stop.

    Needs an identity: TASKYARD_TOKEN, or TASKYARD_TRUST_LOCAL=1 on a machine whose users you trust.
    Filters find live jobs of the ledger; their number must be confirmed. Waits up to 2 s for the
    outcomes; `pending` means that the relay will carry it out, or that an attempt must end first.
    """
    choice = Choice(ids or (), state, job_type, queue, domain, since, limit)
    run_verb(choice, Wish(Event.CANCEL, "cancel", "cancelled", reason, confirm, dry_run, json))
