"""End a message that reaches no task: record its death, then publish its dead letter."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from taskyard.deadletters import build_letter
from taskyard.engine.pending_publications import Owing, pending_publication
from taskyard.engine.read_message import (
    is_identified,
    job_id_of,
    position_of,
    raw_message,
    task_of,
    was_delivered_before,
)
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.states import State
from taskyard.records import Record
from taskyard.runner.settlement_rules import Delivered, settle
from taskyard.runner.stored_decision import death_of, encode_cause
from taskyard.wire.letter_envelope import REPEATED, Letter, RawMessage

__all__ = ["dead_letter", "unidentified_letter"]


# Such a message has nothing by which its next delivery is recognized, so each delivery gets a
# letter of its own, which says so if it may be a repetition.
def unidentified_letter(
    message: RawMessage,
    outcome: Failed,
    *,
    job_type: str,
    queue: str,
    now_us: int,
    delivered_before: bool,
) -> Letter:
    """Return the dead letter of a message without an id.

    The dead letter gets an id, but there is no record of it.
    """
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


def dead_letter(yard: WorkerContext, message: Any, outcome: Failed) -> None:
    """Record the death of a message and publish what follows; raises one of `PUBLISH_ERRORS`.

    After that the message may be acknowledged.
    """
    if not is_identified(message):
        yard.letters.post(_unidentified(yard, message, outcome))
        return
    job_id, stamp = job_id_of(message), position_of(message)
    answer = yard.records.attempts.dead_letter(
        job_id,
        stamp,
        job_type=task_of(message),
        queue=yard.source(message),
        **death_of(outcome),
    )
    settlement = settle(answer, Delivered(job_id, stamp, outcome))
    pending = pending_publication(settlement, Owing(yard, message, job_id, task_of(message), stamp))
    if pending is not None:
        pending.publish()


def _unidentified(yard: WorkerContext, message: Any, outcome: Failed) -> Letter:
    return unidentified_letter(
        raw_message(message),
        outcome,
        job_type=task_of(message),
        queue=yard.source(message),
        now_us=yard.records.now_us(),
        delivered_before=was_delivered_before(message),
    )
