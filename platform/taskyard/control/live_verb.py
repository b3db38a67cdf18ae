"""Verbs on live jobs, up to the outbox: permit, look at the job, validate, audit, in one place.

The relay carries them out. An intent names the epoch and the generation that the operator saw: a
job that was enqueued again or replayed meanwhile is another one, and the verb is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine

from taskyard import audit, outbox
from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.await_relay import PENDING, wait_outcome
from taskyard.control.job_snapshot import JobSeen, ReadsRecords, Source, look_at
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import (
    UNKNOWN_QUEUE,
    MessageRef,
    VerbCall,
    audited,
    check_queue_name,
)
from taskyard.control.withdraw_older import withdraw_older
from taskyard.errors import InvalidPayload, Refused
from taskyard.jobs.states import TERMINAL, TRANSITIONS, Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.outbox import Intent
from taskyard.wire import letter_id
from taskyard.wire.control_characters import escaped
from taskyard.wire.stamp_header import LONGEST_ID

__all__ = [
    "KINDS",
    "SUMMARY",
    "TO_QUEUE",
    "WAIT_S",
    "VerbOutcome",
    "VerbRequested",
    "answers",
    "moved_to",
    "request_verb",
]

WAIT_S: Final = 2.0
"""How long a verb waits for the relay before it answers `pending`."""

_ACTIONS: Final[Mapping[Event, Action]] = {
    Event.CANCEL: Action.CANCEL_REQUEST,
    Event.ABORT: Action.ABORT_REQUEST,
    Event.FORCE_COMPLETE: Action.FORCE_COMPLETE,
    Event.REROUTE: Action.MANUAL_REROUTE,
}
KINDS: Final[Mapping[str, Event]] = {event.value: event for event in _ACTIONS}
"""The intents of these verbs, by the kind that the outbox names."""

SUMMARY: Final = "summary"
TO_QUEUE: Final = "to_queue"
_SHOWN: Final = (SUMMARY, TO_QUEUE)
"""The arguments of verbs that the audit log shows."""

_NO_ANSWER: Final = (
    "no relay has carried it out yet. It stays requested; if none runs, start one: taskyard relay"
)


@dataclass(frozen=True, slots=True)
class VerbRequested:
    """A verb that the relay will carry out on the job as it was `seen`."""

    request_id: uuid.UUID
    seen: JobSeen


@dataclass(frozen=True, slots=True)
class VerbOutcome:
    """The outcome of a verb so far: `applied`, `refused` or `pending`, with the reason.

    `attempt` says what became of an attempt that ran when the verb was applied, for example `was
    stopped`; it is empty if none ran.

    A pending verb is not lost: the relay tries it until it is applied or refused, and
    `taskyard audit show REQUEST_ID` shows the outcome.
    """

    request_id: uuid.UUID
    job_id: str
    outcome: str
    why: str = ""
    attempt: str = ""

    def raise_refusal(self) -> None:
        """Raise `Refused` if the verb was refused."""
        if self.outcome == "refused":
            raise Refused(self.why)


def request_verb(
    engine: Engine,
    records: ReadsRecords,
    job_id: str,
    event: Event,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
    if_version: int | None = None,
    own: Callable[[], Mapping[str, Any]] | None = None,
    require_reason: Mode = "strict",
    message: MessageRef | None = None,
    bulk: bool = False,
) -> VerbRequested:
    """Request a verb on the job with the whole id `job_id`; audit row and intent are one step.

    It withdraws what older open requests for the job would do, see `withdraw_older`. `bulk` is the
    relay's lane, see `outbox.is_bulk`.

    With `if_version` the verb is refused if the job has changed since it had that version. `own`
    returns the verb's own arguments for the relay, or raises `InvalidPayload`. `message` is the
    operator's message with the request: if an earlier delivery of it was answered, nothing is
    requested again.

    Raises `NotPermitted`, `InvalidReason`, `InvalidPayload` and `Refused`; each is audited.
    """
    call = VerbCall(_ACTIONS[event], identity, reason, on_behalf_of, message=message)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
        _check_id(job_id)
        call.target_request_id = job_id
        arguments = {} if own is None else own()
        with engine.begin() as connection:
            seen = look_at(connection, records, job_id)
            if message is None or not audit.rows_of(connection, call.request_id):
                _check(call, seen, event, if_version, arguments)
                intent = _intent(call, seen, event, if_version, arguments, bulk=bulk)
                _act(connection, records, call, seen, intent)
            return VerbRequested(call.request_id, seen)


def _check_id(job_id: str) -> None:
    if not 0 < len(job_id) <= LONGEST_ID or escaped(job_id) != job_id:
        raise InvalidPayload(
            f"a job's id has 1 to {LONGEST_ID} characters and no control characters, got "
            f"{len(job_id)} characters: {escaped(job_id[:60])!r}. See: taskyard jobs list"
        )


def _check(
    call: VerbCall,
    seen: JobSeen,
    event: Event,
    if_version: int | None,
    arguments: Mapping[str, Any],
) -> None:
    to_queue = arguments.get(TO_QUEUE)
    queues = (seen.queue or UNKNOWN_QUEUE, *(() if to_queue is None else (to_queue,)))
    call.permit_on(*queues, domain=seen.domain)
    if seen.state is State.DEAD_LETTERED and seen.epoch is not None:
        letter = letter_id(seen.job_id, seen.epoch, seen.generation or 0)
        call.dead_letter_id = uuid.UUID(letter)
    if if_version is not None and seen.version is not None and seen.version != if_version:
        raise Refused(refusal_text(event, seen.job_id, "version", seen.state))
    # The ledger may be late about a job that moves, never about one that has ended.
    certain = seen.source is Source.RECORD or seen.state in TERMINAL
    if certain and (seen.state, event) not in TRANSITIONS:
        raise Refused(refusal_text(event, seen.job_id, "state", seen.state))
    if seen.source is Source.RECORD and to_queue == seen.queue:
        raise Refused(refusal_text(event, seen.job_id, "queue", seen.state))


def _act(
    connection: Connection, records: ReadsRecords, call: VerbCall, seen: JobSeen, intent: Intent
) -> None:
    older = withdraw_older(connection, records, intent)
    shown = {name: intent.payload[name] for name in _SHOWN if name in intent.payload}
    call.write(connection, Outcome.REQUESTED, {**seen.detail(), **shown, **older.detail()})
    outbox.put(connection, intent)


def _intent(
    call: VerbCall,
    seen: JobSeen,
    event: Event,
    if_version: int | None,
    arguments: Mapping[str, Any],
    *,
    bulk: bool,
) -> Intent:
    payload = {
        "epoch": seen.epoch,
        "generation": seen.generation,
        "version": if_version,
        "job_type": seen.job_type,
        "queue": seen.queue,
        "operator": call.identity.subject,
        **arguments,
    }
    return Intent(call.request_id, event.value, seen.job_id, seen.epoch or 0, payload, bulk=bulk)


def moved_to(queue: str) -> Mapping[str, Any]:
    """Return what the relay needs to move a job to `queue`.

    Raises `InvalidPayload` for a name that no queue can have.
    """
    check_queue_name(queue)
    return {TO_QUEUE: queue}


def answers(
    engine: Engine,
    requested: Iterable[VerbRequested],
    wait_s: float = WAIT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> list[VerbOutcome]:
    """Return the outcomes of all requests, after at most `wait_s` for all of them together."""
    end = clock.monotonic_s() + wait_s
    return [_outcome(engine, one, max(end - clock.monotonic_s(), 0.0), clock) for one in requested]


def _outcome(engine: Engine, requested: VerbRequested, wait_s: float, clock: Clock) -> VerbOutcome:
    request, job_id = requested.request_id, requested.seen.job_id
    outcome, _, why = wait_outcome(engine, request, wait_s, clock).partition(": ")
    if outcome == PENDING and not why:
        why = _NO_ANSWER
    attempt = _attempt(engine, request) if outcome == Outcome.APPLIED else ""
    return VerbOutcome(request, job_id, outcome, why, attempt)


def _attempt(engine: Engine, request_id: uuid.UUID) -> str:
    with engine.connect() as connection:
        detail = audit.rows_of(connection, request_id)[-1]["detail"]
    return str((detail or {}).get("attempt", ""))
