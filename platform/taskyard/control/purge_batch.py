"""Cancel the jobs of one batch of messages, audited, before any of the messages leaves its queue.

A process that dies between two lines leaves cancelled jobs whose messages wait: workers skip
them, and a repeated purge drops them. A request that was committed and not answered is in the
outbox, so a relay carries it out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, assert_never

from redis.exceptions import RedisError
from sqlalchemy import Engine

from taskyard import audit, outbox
from taskyard.access import Action
from taskyard.audit import Outcome
from taskyard.control.operator_verb import VerbCall
from taskyard.errors import Refused
from taskyard.jobs.states import Event
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.records import (
    CancelRequested,
    EndedAttempt,
    LiveVerbCall,
    Records,
    VerbAnswer,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)

__all__ = ["RELAY_AFTER", "Cancelled", "cancel_batch"]

RELAY_AFTER: Final = timedelta(seconds=60)
"""When a relay carries out what a purge has requested and, since it died, not answered.

After the same time without a batch it also answers the request of the purge itself. A batch takes
well under a second; while a server is slow, relay and purge give one answer.
"""

_ANSWERED: Final = (
    f"it did nothing for {RELAY_AFTER.total_seconds():.0f} s, so a relay has answered its request"
)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job's answer: `epoch` is that of the record, None if the job was not cancelled.

    `asked`: its attempt runs and was asked to stop. `left`: a relay has more to do for it, such as
    a reply to its service. `before`: it was cancelled already.
    """

    target: VerbTarget
    epoch: int | None = None
    asked: bool = False
    left: bool = False
    before: bool = False
    error: RedisError | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    target: VerbTarget
    row: audit.Entry

    @property
    def id(self) -> uuid.UUID:
        return self.row.request_id


def cancel_batch(
    engine: Engine,
    records: Records,
    call: VerbCall,
    targets: Sequence[tuple[VerbTarget, Mapping[str, object]]],
) -> list[Cancelled]:
    """Request, carry out and answer the cancel of each job; return what became of each.

    Each target has the facts about its job for the audit log; none keeps only relays from the
    request of the purge. Raises `Refused` before anything is done if a relay has answered that.
    Raises redis-py's errors and SQLAlchemy's: the jobs may be cancelled then, and a relay answers
    the requests.
    """
    requests = [_Request(target, _row(call, target, seen)) for target, seen in targets]
    with engine.begin() as connection:
        audit.write_many(connection, [request.row for request in requests])
        outbox.put_many(connection, [_intent(call, each) for each in requests], RELAY_AFTER)
        if not outbox.keep_ahead(connection, call.request_id, RELAY_AFTER):
            raise Refused(_ANSWERED)
    if not requests:
        return []
    with engine.begin() as connection:
        # No relay takes these before the commit. One that a relay holds already, it answers.
        ours = outbox.lock_open(connection, [request.id for request in requests])
        operator = call.identity.subject
        calls = [
            LiveVerbCall(Event.CANCEL, each.target, str(each.id), operator) for each in requests
        ]
        answers = records.verbs.many(calls)
        rows = {
            request.id: _outcome(request, answer)
            for request, answer in zip(requests, answers, strict=True)
            if request.id in ours
        }
        audit.write_many(connection, [row for row in rows.values() if row is not None])
        outbox.finish_many(connection, [each for each, row in rows.items() if row is not None])
        outbox.release_many(connection, [each for each, row in rows.items() if row is None])
    return [
        _cancelled(request.target, answer)
        for request, answer in zip(requests, answers, strict=True)
    ]


def _row(call: VerbCall, target: VerbTarget, seen: Mapping[str, object]) -> audit.Entry:
    own = replace(
        call,
        action=Action.CANCEL_REQUEST,
        request_id=uuid.uuid4(),
        target_request_id=target.job_id,
    )
    return own.entry(Outcome.REQUESTED, {**seen, "purge": str(call.request_id)})


def _intent(call: VerbCall, request: _Request) -> outbox.Intent:
    target = request.target
    payload = {
        "epoch": target.epoch,
        "generation": target.generation,
        "version": None,
        "job_type": target.job_type,
        "queue": target.queue,
        "operator": call.identity.subject,
    }
    kind = Event.CANCEL.value
    return outbox.Intent(request.id, kind, target.job_id, target.epoch or 0, payload)


def _outcome(request: _Request, answer: VerbAnswer | RedisError) -> audit.Entry | None:
    """Return the row that answers the request; None if a relay has more to do for it."""
    match answer:
        case VerbRefused(why, state):
            text = refusal_text(Event.CANCEL, request.target.job_id, why, state)
            return replace(request.row, outcome=audit.refused(text), detail={})
        case VerbApplied() if not _is_unfinished(answer):
            detail = {
                "state": answer.state.value,
                "epoch": answer.epoch,
                "generation": answer.generation,
                "version": answer.version,
            }
            return replace(request.row, outcome=Outcome.APPLIED, detail=detail)
        case VerbApplied() | CancelRequested() | RedisError():
            return None
        case _:
            assert_never(answer)


def _is_unfinished(answer: VerbApplied) -> bool:
    """Return whether a letter is to be closed, an attempt to be stopped, or a reply to be sent."""
    return answer.letter or answer.attempt is not EndedAttempt.NONE or answer.reply is not None


def _cancelled(target: VerbTarget, answer: VerbAnswer | RedisError) -> Cancelled:
    match answer:
        case VerbApplied():
            left = _is_unfinished(answer)
            return Cancelled(target, answer.epoch, left=left, before=answer.already)
        case CancelRequested():
            return Cancelled(target, asked=True, left=True)
        case VerbRefused():
            return Cancelled(target)
        case RedisError():
            return Cancelled(target, error=answer)
        case _:
            assert_never(answer)
