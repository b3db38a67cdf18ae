"""Carry out an operator's verb on a live job: one script, then the job's dead letter."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final, assert_never

from sqlalchemy import Connection

from taskyard.control.letter_status import close_letter
from taskyard.control.live_verb import KINDS
from taskyard.jobs.letter_states import ENDINGS
from taskyard.jobs.states import Event
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.outbox import Intent
from taskyard.records import CancelRequested, VerbApplied, VerbRefused, VerbTarget
from taskyard.relay.ports import RecordsPort
from taskyard.wire import letter_id

__all__ = ["Applied", "Refusal", "Waits", "carry_out"]

# Tries for a dead letter that the mirror has not stored: with the waits between them, 8 minutes.
_MOST_TRIES: Final = 12


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
    """The verb cannot be answered yet; `attempt` if a running attempt must end first."""

    why: str
    attempt: bool


def carry_out(
    connection: Connection, records: RecordsPort, intent: Intent
) -> Applied | Refusal | Waits:
    """Carry out the verb, or see what became of it; a repeat gets the first answer.

    Raises redis-py's errors.
    """
    event = KINDS[intent.kind]
    answer = _call(records, event, intent)
    match answer:
        case VerbRefused(why, state):
            return Refusal(refusal_text(event, intent.job_id, why, state))
        case CancelRequested(worker=worker):
            return Waits(
                f"worker {worker} runs job {intent.job_id} and was asked to stop; the job is "
                "cancelled when that attempt ends",
                attempt=True,
            )
        case VerbApplied():
            return _applied(connection, intent, answer)
        case _:
            assert_never(answer)


def _call(
    records: RecordsPort, event: Event, intent: Intent
) -> VerbApplied | CancelRequested | VerbRefused:
    facts, request = intent.payload, str(intent.id)
    seen = (facts["epoch"], facts["generation"], facts["version"])
    target = VerbTarget(intent.job_id, *seen, job_type=facts["job_type"], queue=facts["queue"])
    match event:
        case Event.CANCEL:
            return records.verbs.cancel(target, request, facts["operator"])
        case _:
            raise ValueError(f"the event {event} is no operator's verb on a live job")


def _applied(connection: Connection, intent: Intent, answer: VerbApplied) -> Applied | Waits:
    detail: dict[str, Any] = {
        "state": answer.state.value,
        "epoch": answer.epoch,
        "generation": answer.generation,
        "version": answer.version,
    }
    letter = uuid.UUID(letter_id(intent.job_id, answer.epoch, answer.generation))
    known = close_letter(connection, letter, ENDINGS[answer.state])
    if answer.letter and not known:
        if intent.attempts < _MOST_TRIES:
            return Waits(
                f"job {intent.job_id} is {answer.state}, and its dead letter {letter} is not in "
                "Postgres yet; the mirror brings it. If none runs: taskyard mirror",
                attempt=False,
            )
        detail["letter"] = "not in Postgres"
    return Applied(detail)
