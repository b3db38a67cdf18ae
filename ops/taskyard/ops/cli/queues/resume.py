"""`taskyard queues resume`: workers take a paused queue's jobs again.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.run_turn import How, run_turn
from taskyard.ops.cli.switches.turn_options import (
    Behalf,
    BreakGlass,
    DryRun,
    Queue,
    Reason,
    Sign,
    ValidFor,
)
from taskyard.switches import Kind, Mode

__all__ = ["command"]


def command(
    queue: Queue,
    reason: Reason = None,
    dry_run: DryRun = False,
    break_glass: BreakGlass = False,
    sign: Sign = False,
    valid_for: ValidFor = "7d",
    subject: Behalf = None,
    json: Json = False,
) -> None:
    """Resume a paused queue.

    A kill switch that holds the queue is another switch, and stays on.
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
    run_turn(Kind.PAUSE, f"queue:{queue}", Mode.OFF, how)
