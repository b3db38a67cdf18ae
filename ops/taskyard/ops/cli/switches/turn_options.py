"""The options of the verbs that turn switches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = [
    "Behalf",
    "BreakGlass",
    "DryRun",
    "Force",
    "Lasts",
    "On",
    "Queue",
    "Reason",
    "Sign",
    "Until",
    "ValidFor",
    "end_of",
]

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue, as `queues list` has it.")]
On = Annotated[
    str, typer.Argument(metavar="SCOPE", help="all, queue:NAME, type:NAME or domain:NAME.")
]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]
Lasts = Annotated[
    str | None, typer.Option("--for", help="It ends by itself after this time: 90s, 15m, 2h, 7d.")
]
Until = Annotated[
    str | None,
    typer.Option(help="It ends by itself at this time: 2027-01-31T08:00, UTC without a zone."),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also a name that this machine does not know: of an app whose settings are elsewhere.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what it would be, and change nothing.")
]
BreakGlass = Annotated[
    bool,
    typer.Option(
        "--break-glass",
        help="While Postgres does not answer: signed with TASKYARD_SIGNING_KEY, or by local trust.",
    ),
]
Sign = Annotated[
    bool,
    typer.Option(
        "--sign",
        help="Print a signed form instead, for `switches apply`; needs no server.",
    ),
]
ValidFor = Annotated[
    str, typer.Option(help="Of --sign: how long the form may be used, at most 30d.")
]
Behalf = Annotated[
    str | None,
    typer.Option("--as", help="Of a form: for whom, where the key signs for several people."),
]


def end_of(text: str | None) -> datetime | None:
    """Parse the value of --until; raises `typer.BadParameter`."""
    if text is None:
        return None
    try:
        end = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"expected a time such as 2027-01-31T08:00, got {text!r}", param_hint="--until"
        ) from None
    return end if end.tzinfo is not None else end.replace(tzinfo=UTC)
