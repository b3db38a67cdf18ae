"""Carry out operators' verbs on live jobs: one round trip of scripts, then the jobs' dead letters.

Then the attempts that ran are stopped, and at last the jobs' services get a reply. Each step may be
repeated: the script gives a request its first answer, a closed letter stays closed, an attempt is
stopped once, and a repeated reply has the same message id.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, assert_never

from redis.exceptions import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from taskyard.control.letter_status import close_letters
from taskyard.control.live_verb import KINDS, TO_QUEUE
from taskyard.errors import PublishFailed, SchemaMismatch, ServerRefused, ServerUnreachable
from taskyard.jobs.letter_states import ENDINGS
from taskyard.jobs.states import Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.outbox import CARRIED_OUT, Intent
from taskyard.records import (
    CancelRequested,
    EndedAttempt,
    LiveVerbCall,
    Stop,
    StopAnswer,
    VerbAnswer,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)
from taskyard.relay.carry_out_replay import REFUSALS, unreached
from taskyard.relay.continue_chain import continue_chain
from taskyard.relay.new_queue import check_new_queue, fetch_message
from taskyard.relay.ports import Ports, StopsPort
from taskyard.relay.reply_to_service import reply_to_service
from taskyard.relay.results import Applied, Awaits, Failed, Postponed, Refused, Result
from taskyard.wire import Stamp, letter_id

__all__ = ["carry_out_verbs"]

# Tries for a dead letter that the mirror has not stored, with the waits between them 90 s. If its
# worker died before it published the letter, the letter never comes: the job's message ends.
_MOST_TRIES: Final = 8
_LONGEST_LETTER_S: Final = 30.0
# Looks at the worker's answer, after 0.5, 1, 2, 4 and 5 s.
_MOST_LOOKS: Final = 5
_KNOWN_ATTEMPT: Final = "known_attempt"
# A rerouted job's message may wait for days until a worker takes it.
_LONGEST_MOVE_S: Final = 60.0
_ATTEMPT: Final[dict[StopAnswer, str]] = {
    StopAnswer.STOPPED: "was stopped",
    StopAnswer.NOT_RUNNING: "had ended already",
    StopAnswer.UNSUPPORTED: "runs on, because its pool (threads or solo) cannot stop it; its "
    "outcome will be dropped",
}
# Postgres' errors end the transaction, so they concern the whole batch.
_OF_THE_BATCH: Final = (SQLAlchemyError, ServerUnreachable, ServerRefused, SchemaMismatch)


def carry_out_verbs(
    connection: Connection, ports: Ports, intents: Sequence[Intent]
) -> dict[uuid.UUID, Result]:
    """Carry out the verbs, or see what became of them; a repeat gets the first answer.

    Without `queues` the message of a moved job is left to the workers.
    """
    results: dict[uuid.UUID, Result] = {}
    calls = {intent: _checked(ports, intent) for intent in intents}
    ready = {intent: call for intent, call in calls.items() if isinstance(call, LiveVerbCall)}
    results |= {each.id: call for each, call in calls.items() if not isinstance(call, LiveVerbCall)}
    answers = _call(ports, ready)
    letters = {_letter(intent, answer): ENDINGS[answer.state] for intent, answer in _ended(answers)}
    known = close_letters(connection, letters)
    for intent, answer in answers.items():
        results[intent.id] = _result(connection, ports, intent, answer, known)
    return results


def _checked(ports: Ports, intent: Intent) -> LiveVerbCall | Result:
    """Return the call of the verb, or why it is not called."""
    try:
        if ports.queues is not None and intent.kind == Event.REROUTE:
            check_new_queue(ports.settings, ports.records, ports.queues, intent)
        return _verb_call(intent)
    except REFUSALS as error:
        return Refused(error)
    except PublishFailed as error:
        return Postponed(str(error))
    except RedisError as error:
        return unreached(error)
    except Exception as error:  # noqa: BLE001 - a defect that shows in this intent alone
        return Failed(error)


def _verb_call(intent: Intent) -> LiveVerbCall:
    facts, event = intent.payload, KINDS[intent.kind]
    seen = (facts["epoch"], facts["generation"], facts["version"])
    target = VerbTarget(intent.job_id, *seen, job_type=facts["job_type"], queue=facts["queue"])
    own: bytes | str | None = None
    if event is Event.FORCE_COMPLETE:
        own = facts["result"].encode()
    elif event is Event.REROUTE:
        own = facts[TO_QUEUE]
    return LiveVerbCall(event, target, str(intent.id), facts["operator"], own)


def _call(
    ports: Ports, calls: Mapping[Intent, LiveVerbCall]
) -> dict[Intent, VerbAnswer | RedisError | ServerUnreachable | ServerRefused]:
    if not calls:
        return {}
    try:
        answers = ports.records.verbs.many(list(calls.values()))
    except (RedisError, ServerUnreachable, ServerRefused) as error:
        return dict.fromkeys(calls, error)
    return dict(zip(calls, answers, strict=True))


def _ended(answers: Mapping[Intent, object]) -> list[tuple[Intent, VerbApplied]]:
    """Return the jobs that a verb has ended."""
    return [
        (intent, answer)
        for intent, answer in answers.items()
        if isinstance(answer, VerbApplied) and intent.kind != Event.REROUTE
    ]


def _letter(intent: Intent, answer: VerbApplied) -> uuid.UUID:
    return uuid.UUID(letter_id(intent.job_id, answer.epoch, answer.generation))


def _result(
    connection: Connection,
    ports: Ports,
    intent: Intent,
    answer: VerbAnswer | RedisError | ServerUnreachable | ServerRefused,
    letters: frozenset[uuid.UUID],
) -> Result:
    """Return the result of one verb; its last steps are taken for this job alone."""
    if isinstance(answer, Exception):
        return unreached(answer)
    try:
        return _last_steps(connection, ports, intent, answer, letters)
    except _OF_THE_BATCH:
        raise
    except RedisError as error:
        return unreached(error)
    except Exception as error:  # noqa: BLE001 - a defect that shows in this intent alone
        return Failed(error)


def _last_steps(
    connection: Connection,
    ports: Ports,
    intent: Intent,
    answer: VerbAnswer,
    letters: frozenset[uuid.UUID],
) -> Result:
    match answer:
        case VerbRefused() if CARRIED_OUT in intent.payload:
            return _overtaken(ports, intent)
        case VerbRefused(why, state):
            return Refused(refusal_text(KINDS[intent.kind], intent.job_id, why, state))
        case CancelRequested(worker=worker):
            return Awaits(
                f"worker {worker} runs job {intent.job_id} and was asked to stop; the job is "
                "cancelled when that attempt ends"
            )
        case VerbApplied() if intent.kind == Event.REROUTE:
            return _noting(answer, _moved(ports, intent, answer))
        case VerbApplied():
            known = _letter(intent, answer) in letters
            return _noting(answer, _applied(connection, ports, intent, answer, known=known))
        case _:
            assert_never(answer)


def _noting(
    answer: VerbApplied, result: Applied | Awaits | Postponed
) -> Applied | Awaits | Postponed:
    """Let a verb that waits note that it is carried out: a later verb may change the record."""
    if isinstance(result, Applied):
        return result
    return replace(result, known={**result.known, CARRIED_OUT: _detail(answer)})


def _overtaken(ports: Ports, intent: Intent) -> Applied:
    """Return the answer to a verb that waited while a later one changed the record again."""
    detail = {**intent.payload[CARRIED_OUT]}
    if TO_QUEUE in intent.payload:
        detail[TO_QUEUE] = intent.payload[TO_QUEUE]
    known = ports.records.stops.answer_to(str(intent.id))
    return Applied(detail if known is None else {**detail, "attempt": _ATTEMPT[known]})


def _moved(ports: Ports, intent: Intent, answer: VerbApplied) -> Applied | Awaits:
    """Return the answer to a reroute, once the job's message is in its new queue."""
    records, queues = ports.records, ports.queues
    attempt = _stopped(ports, intent, answer)
    if isinstance(attempt, Awaits):
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
        return Awaits(
            f"its message waits in {intent.payload['queue'] or 'its old queue'}; it moves to "
            f"{to_queue} when a worker takes it there. Who reads that queue: taskyard queues list",
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
    connection: Connection, ports: Ports, intent: Intent, answer: VerbApplied, *, known: bool
) -> Applied | Awaits | Postponed:
    """Return the answer to a verb that has ended the job; `known`: Postgres has its letter."""
    detail = _detail(answer)
    letter = _letter(intent, answer)
    if answer.letter and not known:
        if intent.attempts < _MOST_TRIES:
            return Awaits(
                f"job {intent.job_id} is {answer.state}, and its dead letter {letter} is not in "
                "Postgres yet; the mirror brings it. If none runs: taskyard mirror",
                # The job has ended, so later requests for it are refused now as well as then.
                longest_s=_LONGEST_LETTER_S,
            )
        detail["letter"] = "not in Postgres"
    attempt = intent.payload.get(_KNOWN_ATTEMPT) or _stopped(ports, intent, answer)
    if isinstance(attempt, Awaits):
        return attempt
    forced = answer.letter and known and answer.state is State.COMPLETED
    try:
        message = (
            continue_chain(connection, ports.settings, ports.publisher, intent, letter, answer)
            if forced
            else None
        )
        reply = reply_to_service(ports.publisher, intent, answer)
    except PublishFailed as error:
        # The worker's answer expires, and the broker may be away for longer.
        facts = {} if attempt is None else {_KNOWN_ATTEMPT: attempt}
        return Postponed(str(error), known=facts)
    said = {"attempt": attempt, "message": message, "reply": reply}
    return Applied({**detail, **{name: text for name, text in said.items() if text is not None}})


def _stopped(ports: Ports, intent: Intent, answer: VerbApplied) -> str | Awaits | None:
    """Return what became of the attempt that ran; None if no attempt ran."""
    match answer.attempt:
        case EndedAttempt.NONE:
            return None
        case EndedAttempt.OBSERVED:
            return "runs on, because its worker only observes it; its outcome will be dropped"
        case EndedAttempt.PROTECTED:
            return _stop(ports.records.stops, intent, answer)
        case _:
            assert_never(answer.attempt)


def _stop(stops: StopsPort, intent: Intent, answer: VerbApplied) -> str | Awaits:
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
    return Awaits(
        f"job {intent.job_id} is {answer.state}, and worker {answer.worker} was asked to stop its "
        "attempt",
        first_s=0.5,
    )
