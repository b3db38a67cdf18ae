"""End a job for a control command of Celery: an operator's verb, carried out by the worker itself.

Every worker that gets the broadcast calls the same scripts with the same request id, so the verb is
carried out once. Each asks the worker that runs the job to stop its attempt, as the relay does. A
dead letter stays, as Celery's `revoke` leaves a task that has ended: whoever revokes a job does not
ask to lose its replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from taskyard.access import Action
from taskyard.engine.revocation import Revocation
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import NotPermitted
from taskyard.jobs.states import Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.records import (
    CancelRequested,
    EndedAttempt,
    Record,
    Stop,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)

__all__ = ["DENIED", "JobOutcome", "JobSeen", "look_at", "revoke_job"]

DENIED: Final = "denied"
_ASKED: Final = "asked_to_stop"
_UNKNOWN_QUEUE: Final = "(unknown)"
_EVENTS: Final = {Action.CANCEL_REQUEST: Event.CANCEL, Action.ABORT_REQUEST: Event.ABORT}
# A job that moves between the look at it and the verb is looked at again so often.
_LOOKS: Final = 5


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job as this worker sees it; type and queue are empty if neither shows them.

    They come from the record, or from the request that the worker holds.
    """

    record: Record
    job_type: str
    queue: str


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one job; `short` is for the audit log, `text` for the sender.

    `ended` is the state in which the command has ended the job, now or before.
    """

    short: str
    text: str
    applied: bool = False
    ended: State | None = None

    @classmethod
    def refused(cls, short: object, text: str) -> Self:
        """Return the outcome of a job that the command has not changed."""
        return cls(f"refused: {short}", text)


def look_at(context: WorkerContext, job_id: str, held: Any = None) -> JobSeen:
    """Return the job; `held` is the request with its id. Raises redis-py's errors."""
    record = context.records.read(job_id)
    if held is None:
        return JobSeen(record, record.job_type, record.queue)
    job_type, queue = record.job_type or str(held.type), record.queue
    return JobSeen(record, job_type, queue or context.source(held.message))


def revoke_job(
    context: WorkerContext, revocation: Revocation, job_id: str, held: Any = None
) -> JobOutcome:
    """End one of our jobs as the command wants; raises redis-py's errors."""
    looks = 1
    try:
        answer = _end(context, revocation, look_at(context, job_id, held))
        while _has_moved(answer) and looks < _LOOKS:
            answer = _end(context, revocation, look_at(context, job_id, held))
            looks += 1
    except NotPermitted as error:
        return JobOutcome(DENIED, str(error))
    if isinstance(answer, VerbApplied) and answer.attempt is EndedAttempt.PROTECTED:
        stop = Stop(job_id, answer.token, revocation.request_id)
        context.records.stops.ask(answer.worker, stop)
    return _outcome(revocation, job_id, answer)


def _has_moved(answer: VerbApplied | CancelRequested | VerbRefused) -> bool:
    """Return whether the job has changed between the look at it and the script."""
    return isinstance(answer, VerbRefused) and answer.why != "state"


def _permit(context: WorkerContext, revocation: Revocation, seen: JobSeen) -> None:
    if revocation.identity is not None:
        domain = seen.record.fields.get("domain") or context.catalogue.domain_of(seen.job_type)
        queues = [seen.queue or _UNKNOWN_QUEUE]
        revocation.identity.permit_on(revocation.verb, queues=queues, domain=domain or None)


def _end(
    context: WorkerContext, revocation: Revocation, seen: JobSeen
) -> VerbApplied | CancelRequested | VerbRefused:
    """Call the script for the job as it was seen; it refuses a job that has changed since.

    Raises `NotPermitted`, and redis-py's errors.
    """
    _permit(context, revocation, seen)
    record, verbs = seen.record, context.records.verbs
    place = (record.epoch, record.generation, record.number("version"))
    if record.state is State.DEAD_LETTERED:
        return VerbRefused("state", record.state, *place)
    named = VerbTarget(record.job_id, job_type=seen.job_type, queue=seen.queue)
    epoch, generation, version = place
    known = replace(named, epoch=epoch, generation=generation, version=version)
    target = named if record.state is State.NONE else known
    call = verbs.cancel if _EVENTS[revocation.verb] is Event.CANCEL else verbs.abort
    return call(target, revocation.request_id, revocation.by)


def _outcome(
    revocation: Revocation, job_id: str, answer: VerbApplied | CancelRequested | VerbRefused
) -> JobOutcome:
    match answer:
        case VerbApplied(state):
            return JobOutcome(state.value, f"job {job_id} is {state}", applied=True, ended=state)
        case CancelRequested(worker=worker):
            text = f"worker {worker} was asked to stop job {job_id}"
            return JobOutcome(_ASKED, text, applied=True)
        case VerbRefused("state", State.DEAD_LETTERED):
            text = (
                f"job {job_id} has a dead letter, which Celery's control commands leave alone. To "
                f"end it: taskyard jobs cancel {job_id}"
            )
            return JobOutcome.refused(State.DEAD_LETTERED, text)
        case VerbRefused(why, state):
            text = refusal_text(_EVENTS[revocation.verb], job_id, why, state)
            return JobOutcome.refused(state if why == "state" else why, text)
