"""The options with which `audit list` and `audit export` select rows."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from taskyard.access import Action as ActionType
from taskyard.audit.read import Filters
from taskyard.ops.cli.options import moment_of

__all__ = ["Action", "By", "Job", "Letter", "Outcome", "Since", "Until", "filters_of"]


class _Outcome(StrEnum):
    REQUESTED = "requested"
    APPLIED = "applied"
    DENIED = "denied"
    REFUSED = "refused"


Action = Annotated[ActionType | None, typer.Option(help="Only this action.")]
By = Annotated[str | None, typer.Option("--by", help="Only by this identity.")]
Outcome = Annotated[_Outcome | None, typer.Option(help="Only with this outcome.")]
Job = Annotated[str | None, typer.Option(help="Only for this job: its id or first characters.")]
Letter = Annotated[str | None, typer.Option(help="Only for the dead letter with this whole id.")]
Since = Annotated[str | None, typer.Option(help="Done since: 15m, 2h, 7d, or a time.")]
Until = Annotated[str | None, typer.Option(help="Done before: 15m, 2h, 7d ago, or a time.")]


def filters_of(
    now: datetime,
    *,
    action: ActionType | None,
    by: str | None,
    outcome: str | None,
    job: str | None,
    letter: str | None,
    since: str | None,
    until: str | None = None,
) -> Filters:
    """Return the filters from the options; raises `typer.BadParameter`."""
    return Filters(
        action=action,
        identity=by,
        outcome=None if outcome is None else str(outcome),
        job=job,
        letter=None if letter is None else _uuid(letter),
        since=moment_of(since, now),
        until=moment_of(until, now),
    )


def _uuid(written: str) -> uuid.UUID:
    try:
        return uuid.UUID(written)
    except ValueError:
        raise typer.BadParameter(
            f"expected the whole id of a dead letter, a UUID, got {written[:60]!r}. "
            "See: taskyard dlq list --json",
            param_hint="--letter",
        ) from None
