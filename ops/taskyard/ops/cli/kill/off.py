"""`taskyard kill off`: turn the kill switch off.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.run_turn import How, run_turn
from taskyard.ops.cli.switches.turn_options import (
    Behalf,
    BreakGlass,
    DryRun,
    On,
    Reason,
    Sign,
    ValidFor,
)
from taskyard.switches import Kind, Mode

__all__ = ["command"]


def command(
    on: On,
    reason: Reason = None,
    dry_run: DryRun = False,
    break_glass: BreakGlass = False,
    sign: Sign = False,
    valid_for: ValidFor = "7d",
    subject: Behalf = None,
    json: Json = False,
) -> None:
    """Turn the kill switch off: new work is accepted, and what was held runs.

    Names the same scope as `kill on` did; other switches that are on stay on.
    """
    how = How(
        reason,
        dry_run=dry_run,
        break_glass=break_glass,
        sign=sign,
        valid_for=valid_for,
        subject=subject,
        json=json,
    )
    run_turn(Kind.KILL, on, Mode.OFF, how)
