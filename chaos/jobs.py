"""The native handler under the storm: one effect without an inbox, one with; some fail."""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from pydantic import BaseModel

from chaos.effects import apply_once, note_effect, note_poisoning, work_s
from taskyard.errors import CodedError
from taskyard.jobs import JobContext, job

__all__ = ["Deed"]

# Long enough for a database that does not answer for half a minute.
_POLICY: Final = {
    "max_retries": 12,
    "backoff_strategy": "exponential",
    "base_delay_ms": 300,
    "max_delay_ms": 4000,
    "no_retry_errors": ["doomed"],
}
# How often work looks whether it must stop.
_LOOK_S: Final = 0.02


class Deed(BaseModel):
    """`kind`: `plain`, `flaky` (its first attempt fails), `doomed` (it always fails).

    `poison` kills the process that runs it, each time. `slow` works for a while before its
    effects, and `early` after them; both stop when an operator asks them to.
    """

    number: int
    kind: str = "plain"


@job("storm_deed", queue="exec", policy=_POLICY, time_limit_s=30)
def storm_deed(deed: Deed, context: JobContext) -> int:
    """Apply both effects."""
    if deed.kind == "doomed":
        raise CodedError("doomed", "asked to fail for good")
    if deed.kind == "poison":
        note_poisoning(context.job_id)
        os.kill(os.getpid(), signal.SIGKILL)
    if deed.kind == "flaky" and context.attempt == 1:
        raise CodedError("flaky", "asked to fail once")
    if deed.kind == "slow":
        _work(deed.number, context)
    apply_once(context.job_id, context.once, context.token)
    note_effect(context.job_id, context.token)
    if deed.kind == "early":
        _work(deed.number, context)
    return deed.number


def _work(number: int, context: JobContext) -> None:
    """Work for a while, or until the attempt must stop."""
    end_s = time.monotonic() + work_s(number)
    while time.monotonic() < end_s:
        if context.cancelled:
            raise CodedError("stopped", "asked to stop")
        time.sleep(_LOOK_S)
