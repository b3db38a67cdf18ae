"""Operators' verbs on the jobs of a yard in memory, as the relay carries them out.

Alone because it is the only file here that stands for the relay.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from taskyard.errors import Refused
from taskyard.jobs.states import Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.records import CancelRequested, VerbApplied, VerbRefused, VerbTarget
from taskyard.testing.broker import MemoryBroker
from taskyard.testing.records import MemoryRecords
from taskyard.wire.celery_result import encoded_result
from taskyard.wire.operator_reply import reply_message

__all__ = ["MemoryOperator"]

_OPERATOR: Final = "test"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the test; `own` is the result of a completion, or the queue of a reroute."""

    id: uuid.UUID
    event: Event
    job_id: str
    own: Any
    summary: str | None


class MemoryOperator:
    """Carries out verbs, and replies to the service of a job that a verb has ended."""

    def __init__(self, records: MemoryRecords, broker: MemoryBroker) -> None:
        self._records, self._broker = records, broker
        self._asked: list[Request] = []

    def operate(
        self, event: Event, job_id: str, own: Any = None, summary: str | None = None
    ) -> State:
        """Carry out a verb and return the job's state after it; raises `Refused`."""
        request = Request(uuid.uuid4(), event, job_id, own, summary)
        answer = self._call(request)
        if isinstance(answer, VerbRefused):
            raise Refused(refusal_text(event, job_id, answer.why, answer.state))
        if isinstance(answer, CancelRequested):
            self._asked.append(request)
            return State.RUNNING
        self._reply(request, answer)
        return answer.state

    def look_again(self) -> None:
        """Reply about jobs whose attempts were asked to stop, and have ended since."""
        asked, self._asked = self._asked, []
        for request in asked:
            answer = self._call(request)
            if isinstance(answer, CancelRequested):
                self._asked.append(request)
            elif isinstance(answer, VerbApplied):
                self._reply(request, answer)

    def _call(self, request: Request) -> VerbApplied | CancelRequested | VerbRefused:
        verbs, target = self._records.verbs, VerbTarget(request.job_id)
        by = (str(request.id), _OPERATOR)
        match request.event:
            case Event.CANCEL:
                return verbs.cancel(target, *by)
            case Event.ABORT:
                return verbs.abort(target, *by)
            case Event.REROUTE:
                return verbs.reroute(target, *by, request.own)
            case _:
                return verbs.force_complete(target, *by, _result(request))

    def _reply(self, request: Request, answer: VerbApplied) -> None:
        if answer.reply is None or request.event is Event.REROUTE:
            return
        message = reply_message(
            request.id,
            request.job_id,
            answer.state.value,
            answer.reply.correlation_id,
            result=_result(request) if request.event is Event.FORCE_COMPLETE else None,
            summary=request.summary,
        )
        self._broker.publish_reply(message, queue=answer.reply.queue, job_id=request.job_id)


def _result(request: Request) -> bytes:
    return encoded_result(request.job_id, request.own)
