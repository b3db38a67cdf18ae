"""The letter of a message without an id: no message leaves less than one.

Such a message has nothing by which its next delivery is known again, so each delivery gets a letter
of its own, and says so where it may be a repetition.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from taskyard.deadletters import build_letter
from taskyard.jobs.outcomes import Failed
from taskyard.jobs.states import State
from taskyard.records import Record
from taskyard.runner.cause import encode_cause
from taskyard.wire.letters import REPEATED, Letter, RawMessage

__all__ = ["unidentified_letter"]


def unidentified_letter(
    message: RawMessage,
    outcome: Failed,
    *,
    job_type: str,
    queue: str,
    now_us: int,
    delivered_before: bool,
) -> Letter:
    """The letter of a message without an id, which is given one; no record knows it."""
    if delivered_before:
        failure = outcome.failure
        failure = replace(
            failure,
            message=f"{failure.message}{REPEATED}",
            details={**(failure.details or {}), "possibly_repeated": True},
        )
        outcome = replace(outcome, failure=failure)
    fields = {
        "state": State.DEAD_LETTERED.value,
        "epoch": str(now_us),
        "version": "1",
        "type": job_type,
        "queue": queue,
        "decided": str(now_us),
        "cause": encode_cause(outcome).decode(),
    }
    return build_letter(Record(str(uuid.uuid4()), fields), message)
