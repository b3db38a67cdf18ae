"""`taskyard kill on`: turn the kill switch on, for everything or for a queue, type or domain."""

from __future__ import annotations

from typing import Annotated

import typer

from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.run_turn import How, run_turn
from taskyard.ops.cli.switches.turn_options import (
    Behalf,
    BreakGlass,
    DryRun,
    Force,
    Lasts,
    On,
    Reason,
    Sign,
    Until,
    ValidFor,
)
from taskyard.switches import Kind, Mode

__all__ = ["command"]


def command(
    on: On,
    reason: Reason = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Also hold what waits; without it that still runs.")
    ] = False,
    lasts: Lasts = None,
    until: Until = None,
    force: Force = False,
    dry_run: DryRun = False,
    break_glass: BreakGlass = False,
    sign: Sign = False,
    valid_for: ValidFor = "7d",
    subject: Behalf = None,
    json: Json = False,
) -> None:
    """Turn the kill switch on: new work is refused, and with --hold what waits is held.

    What runs runs on. Needs an admin, or a grant by name. Where Postgres does not answer,
    --break-glass sets it in Redis alone: signed with TASKYARD_SIGNING_KEY, or with a form that
    --sign printed before (`switches apply`), or as this machine's trusted user.
    """
    mode = Mode.HOLD if hold else Mode.REFUSE
    how = How(reason, lasts, until, force, dry_run, break_glass, sign, valid_for, subject, json)
    run_turn(Kind.KILL, on, mode, how)
