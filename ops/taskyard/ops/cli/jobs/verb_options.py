"""The options that the verbs on live jobs share: which jobs, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from taskyard.jobs.states import State

__all__ = [
    "Confirm",
    "DryRun",
    "Ids",
    "OfDomain",
    "OfQueue",
    "OfState",
    "OfType",
    "Reason",
    "Since",
]

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="Ids, their first characters, or - for stdin."),
]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]
OfState = Annotated[State | None, typer.Option(help="Instead of ids: jobs in this state.")]
OfType = Annotated[str | None, typer.Option("--type", help="Instead of ids: this job type.")]
OfQueue = Annotated[str | None, typer.Option(help="Instead of ids: this queue.")]
OfDomain = Annotated[str | None, typer.Option(help="Instead of ids: job types of this domain.")]
Since = Annotated[
    str | None, typer.Option(help="Instead of ids: changed since 15m, 2h, 7d, or a time.")
]
Confirm = Annotated[int | None, typer.Option(help="The number of jobs that the filters match.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show which jobs are meant, and change nothing.")
]
