"""The native handler under the storm: one effect without an inbox, one with; some fail."""

from __future__ import annotations

import os
import signal
from typing import Final

from pydantic import BaseModel

from chaos.effects import apply_once, note_effect, note_poisoning
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


class Deed(BaseModel):
    """`kind`: `plain`, `flaky` (its first attempt fails), `doomed` (it always fails).

    `poison` kills the process that runs it, each time.
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
    apply_once(context.job_id, context.once)
    note_effect(context.job_id)
    return deed.number
