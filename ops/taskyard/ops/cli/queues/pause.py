"""`taskyard queues pause`: workers take nothing from a queue until it is resumed.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from taskyard.ops.cli.options import Json
from taskyard.ops.cli.switches.run_turn import How, run_turn
from taskyard.ops.cli.switches.turn_options import (
    Behalf,
    BreakGlass,
    DryRun,
    Force,
    Lasts,
    Queue,
    Reason,
    Sign,
    Until,
    ValidFor,
)
from taskyard.switches import Kind, Mode

__all__ = ["command"]


def command(
    queue: Queue,
    reason: Reason = None,
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
    """Pause a queue: workers take nothing from it, and services may still enqueue.

    What runs runs on; what waits stays in the queue. A paused queue may be paused again, with
    another end or reason. --break-glass and --sign are as in `kill on`.
    """
    how = How(reason, lasts, until, force, dry_run, break_glass, sign, valid_for, subject, json)
    run_turn(Kind.PAUSE, f"queue:{queue}", Mode.HOLD, how)
