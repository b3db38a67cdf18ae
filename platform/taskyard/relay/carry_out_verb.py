"""Carry out an operator's verb on a live job: one script, then the job's dead letter.

Then the attempt that ran is stopped, and at last the job's service gets a reply. Each step may be
repeated: the script gives a request its first answer, a closed letter stays closed, an attempt is
stopped once, and a repeated reply has the same message id.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, assert_never

from sqlalchemy import Connection

from taskyard.control.letter_status import close_letter
from taskyard.control.live_verb import KINDS, TO_QUEUE
from taskyard.errors import PublishFailed
from taskyard.jobs.letter_states import ENDINGS
from taskyard.jobs.states import Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.outbox import Intent
from taskyard.records import (
    CancelRequested,
    EndedAttempt,
    Stop,
    StopAnswer,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)
from taskyard.relay.continue_chain import continue_chain
from taskyard.relay.new_queue import fetch_message
from taskyard.relay.ports import PublisherPort, QueuesPort, RecordsPort, StopsPort
from taskyard.relay.reply_to_service import reply_to_service
from taskyard.settings import Settings
from taskyard.wire import Stamp, letter_id

__all__ = ["Applied", "Refusal", "Waits", "carry_out"]

# Tries for a dead letter that the mirror has not stored, with the waits between them 90 s. If its
# worker died before it published the letter, the letter never comes: the job's message ends.
_MOST_TRIES: Final = 8
_LONGEST_LETTER_S: Final = 30.0
# Looks at the worker's answer, after 0.5, 1, 2, 4 and 5 s.
_MOST_LOOKS: Final = 5
_KNOWN_ATTEMPT: Final = "known_attempt"
_CARRIED_OUT: Final = "carried_out"
# A rerouted job's message may wait for days until a worker takes it.
_LONGEST_MOVE_S: Final = 60.0
_ATTEMPT: Final[dict[StopAnswer, str]] = {
    StopAnswer.STOPPED: "was stopped",
    StopAnswer.NOT_RUNNING: "had ended already",
    StopAnswer.UNSUPPORTED: "runs on, because its pool (threads or solo) cannot stop it; its "
    "outcome will be dropped",
}


@dataclass(frozen=True, slots=True)
class Applied:
    """The verb is carried out; `detail` is for the audit log."""

    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The verb has changed nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The verb cannot be answered yet.

    `attempt` if a running attempt must end first, the job's message must move, or the mirror must
    bring the letter of a job that has ended: later requests for the job do not wait for this one.
    """

    why: str
    attempt: bool
    first_s: float = 1.0
    """After how many seconds the relay looks first; each later wait is twice as long."""
    longest_s: float = 5.0
    """The longest of these waits: how late the end of an attempt may be answered."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the intent's payload that a later try cannot find out any more."""


def carry_out(
    connection: Connection,
    settings: Settings,
    records: RecordsPort,
    publisher: PublisherPort,
    intent: Intent,
    queues: QueuesPort | None = None,
) -> Applied | Refusal | Waits:
    """Carry out the verb, or see what became of it; a repeat gets the first answer.

    Without `queues` the message of a moved job is left to the workers. Raises redis-py's errors.
    """
    event = KINDS[intent.kind]
    answer = _call(records, event, intent)
    match answer:
        case VerbRefused() if _CARRIED_OUT in intent.payload:
            return _overtaken(records, intent)
        case VerbRefused(why, state):
            return Refusal(refusal_text(event, intent.job_id, why, state))
        case CancelRequested(worker=worker):
            return Waits(
                f"worker {worker} runs job {intent.job_id} and was asked to stop; the job is "
                "cancelled when that attempt ends",
                attempt=True,
            )
        case VerbApplied() if event is Event.REROUTE:
            result = _moved(records, queues, intent, answer)
        case VerbApplied():
            result = _applied(connection, settings, records, publisher, intent, answer)
        case _:
            assert_never(answer)
    if isinstance(result, Waits):
        return replace(result, known={**result.known, _CARRIED_OUT: _detail(answer)})
    return result


def _overtaken(records: RecordsPort, intent: Intent) -> Applied:
    """Return the answer to a verb that waited while a later one changed the record again."""
    detail = {**intent.payload[_CARRIED_OUT]}
    if TO_QUEUE in intent.payload:
        detail[TO_QUEUE] = intent.payload[TO_QUEUE]
    known = records.stops.answer_to(str(intent.id))
    return Applied(detail if known is None else {**detail, "attempt": _ATTEMPT[known]})


def _call(
    records: RecordsPort, event: Event, intent: Intent
) -> VerbApplied | CancelRequested | VerbRefused:
    facts, request = intent.payload, str(intent.id)
    seen = (facts["epoch"], facts["generation"], facts["version"])
    target = VerbTarget(intent.job_id, *seen, job_type=facts["job_type"], queue=facts["queue"])
    match event:
        case Event.CANCEL:
            return records.verbs.cancel(target, request, facts["operator"])
        case Event.ABORT:
            return records.verbs.abort(target, request, facts["operator"])
        case Event.FORCE_COMPLETE:
            result = facts["result"].encode()
            return records.verbs.force_complete(target, request, facts["operator"], result)
        case Event.REROUTE:
            return records.verbs.reroute(target, request, facts["operator"], facts[TO_QUEUE])
        case _:
            raise ValueError(f"the event {event} is no operator's verb on a live job")


def _moved(
    records: RecordsPort, queues: QueuesPort | None, intent: Intent, answer: VerbApplied
) -> Applied | Waits:
    """Return the answer to a reroute, once the job's message is in its new queue."""
    attempt = _stopped(records, intent, answer)
    if isinstance(attempt, Waits):
        return attempt
    to_queue = intent.payload[TO_QUEUE]
    stamp = Stamp(answer.epoch, answer.generation)
    fetched = (
        answer.state is State.REROUTED
        and queues is not None
        # Once, or many waiting reroutes would search the same queue again and again.
        and intent.attempts == 0
        and fetch_message(records, queues, intent, stamp)
    )
    if answer.state is State.REROUTED and not fetched:
        return Waits(
            f"its message waits in {intent.payload['queue'] or 'its old queue'}; it moves to "
            f"{to_queue} when a worker takes it there. Who reads that queue: taskyard queues list",
            attempt=True,
            longest_s=_LONGEST_MOVE_S,
        )
    if attempt is None:
        # The attempt was stopped before its message was forwarded; with that the record forgot it.
        known = records.stops.answer_to(str(intent.id))
        attempt = None if known is None else _ATTEMPT[known]
    detail = {**_detail(answer), TO_QUEUE: to_queue}
    if fetched:
        detail["state"] = State.ACCEPTED.value
    return Applied(detail if attempt is None else {**detail, "attempt": attempt})


def _detail(answer: VerbApplied) -> dict[str, Any]:
    return {
        "state": answer.state.value,
        "epoch": answer.epoch,
        "generation": answer.generation,
        "version": answer.version,
    }


def _applied(
    connection: Connection,
    settings: Settings,
    records: RecordsPort,
    publisher: PublisherPort,
    intent: Intent,
    answer: VerbApplied,
) -> Applied | Waits:
    detail = _detail(answer)
    letter = uuid.UUID(letter_id(intent.job_id, answer.epoch, answer.generation))
    known = close_letter(connection, letter, ENDINGS[answer.state])
    if answer.letter and not known:
        if intent.attempts < _MOST_TRIES:
            return Waits(
                f"job {intent.job_id} is {answer.state}, and its dead letter {letter} is not in "
                "Postgres yet; the mirror brings it. If none runs: taskyard mirror",
                # The job has ended, so later requests for it are refused now as well as then.
                attempt=True,
                longest_s=_LONGEST_LETTER_S,
            )
        detail["letter"] = "not in Postgres"
    attempt = intent.payload.get(_KNOWN_ATTEMPT) or _stopped(records, intent, answer)
    if isinstance(attempt, Waits):
        return attempt
    forced = answer.letter and known and answer.state is State.COMPLETED
    try:
        message = (
            continue_chain(connection, settings, publisher, intent, letter, answer)
            if forced
            else None
        )
        reply = reply_to_service(publisher, intent, answer)
    except PublishFailed as error:
        # The worker's answer expires, and the broker may be away for longer.
        facts = {} if attempt is None else {_KNOWN_ATTEMPT: attempt}
        return Waits(str(error), attempt=False, known=facts)
    said = {"attempt": attempt, "message": message, "reply": reply}
    return Applied({**detail, **{name: text for name, text in said.items() if text is not None}})


def _stopped(records: RecordsPort, intent: Intent, answer: VerbApplied) -> str | Waits | None:
    """Return what became of the attempt that ran; None if no attempt ran."""
    match answer.attempt:
        case EndedAttempt.NONE:
            return None
        case EndedAttempt.OBSERVED:
            return "runs on, because its worker only observes it; its outcome will be dropped"
        case EndedAttempt.PROTECTED:
            return _stop(records.stops, intent, answer)
        case _:
            assert_never(answer.attempt)


def _stop(stops: StopsPort, intent: Intent, answer: VerbApplied) -> str | Waits:
    request = str(intent.id)
    known = stops.answer_to(request)
    if known is not None:
        return _ATTEMPT[known]
    # A fencing token is at least the time of its begin.
    if not stops.worker_lives(answer.worker, answer.token):
        return f"had ended already, because its worker {answer.worker} is gone"
    if intent.attempts >= _MOST_LOOKS:
        return (
            f"may run on, because its worker {answer.worker} has not answered; its outcome will be "
            "dropped"
        )
    stops.ask(answer.worker, Stop(intent.job_id, answer.token, request))
    return Waits(
        f"job {intent.job_id} is {answer.state}, and worker {answer.worker} was asked to stop its "
        "attempt",
        attempt=True,
        first_s=0.5,
    )
