"""Operators' verbs on the jobs of a yard in memory, as the relay carries them out.

Alone because it is the only file here that stands for the relay.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from taskyard.errors import Refused
from taskyard.jobs.states import Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.records import CancelRequested, VerbRefused, VerbTarget
from taskyard.testing.records import MemoryRecords
from taskyard.wire.celery_result import encoded_result

__all__ = ["operate"]

_OPERATOR: Final = "test"


def operate(records: MemoryRecords, event: Event, job_id: str, own: Any = None) -> State:
    """Carry out a verb and return the job's state after it; raises `Refused`.

    `own` is the result of a forced completion, or the queue of a reroute.
    """
    target, request = VerbTarget(job_id), str(uuid.uuid4())
    match event:
        case Event.CANCEL:
            answer: Any = records.verbs.cancel(target, request, _OPERATOR)
        case Event.ABORT:
            answer = records.verbs.abort(target, request, _OPERATOR)
        case Event.REROUTE:
            answer = records.verbs.reroute(target, request, _OPERATOR, own)
        case _:
            forced = encoded_result(job_id, own)
            answer = records.verbs.force_complete(target, request, _OPERATOR, forced)
    if isinstance(answer, VerbRefused):
        raise Refused(refusal_text(event, job_id, answer.why, answer.state))
    return State.RUNNING if isinstance(answer, CancelRequested) else State(answer.state)
