"""What became of claimed intents, and how that is written: one statement for each kind of result.

The rows are written in the transaction that has claimed the intents.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from taskyard import audit, outbox
from taskyard.audit import Outcome
from taskyard.control.letter_status import reopen_many
from taskyard.control.letters_of_ended_jobs import close_letters_of
from taskyard.control.replay import KIND
from taskyard.outbox import Intent, Postponement
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.redacted_logs import logger

__all__ = [
    "LONGEST_WAIT_S",
    "Applied",
    "Awaits",
    "Failed",
    "Postponed",
    "Refused",
    "Result",
    "Results",
    "Unaudited",
    "log_results",
    "write_results",
]

log = logger(__name__)

LONGEST_WAIT_S: Final = 60.0
_OUTBOX: Final = "outbox"
_NOT_AUDITED: Final = "not_audited"


@dataclass(frozen=True, slots=True)
class Applied:
    """The intent is carried out; `detail` is for the audit log."""

    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The intent has changed nothing, and will not. A replay's letter is open again."""

    why: object


@dataclass(frozen=True, slots=True)
class Postponed:
    """The intent is tried again later, after a wait that grows with its tries.

    `known` are facts for the intent's payload that a later try cannot find out any more.
    """

    why: str
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Awaits:
    """A running attempt must end, the job's message must move, or its letter must be stored.

    Later requests for the job do not wait for this one.
    """

    why: str
    first_s: float = 1.0
    """After how many seconds the relay looks first; each later wait is twice as long."""
    longest_s: float = 5.0
    """The longest of these waits: how late the end of an attempt may be answered."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """As with `Postponed`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An unexpected error; it is a defect, so the intent is set aside and tried again later."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Unaudited:
    """The audit log does not know the intent, or knows it for another job.

    Every verb writes both in one transaction, so somebody wrote this one into the outbox alone. It
    is not postponed, since the later intents of its job would wait for it.
    """


Result = Applied | Refused | Postponed | Awaits | Failed | Unaudited
Results = Mapping[uuid.UUID, Result]
"""The results by the intents' ids. An intent without a result is left to the next batch."""


def write_results(connection: Connection, intents: Sequence[Intent], results: Results) -> None:
    """Write every result: intents, letters and audit log."""
    ended = [(each, results[each.id]) for each in intents if _is_ended(results.get(each.id))]
    reopen_many(connection, dict(_reopened(ended)))
    # An operator may have ended the job meanwhile.
    close_letters_of(connection, [each.job_id for each, result in ended if _reopens(each, result)])
    outbox.finish_many(connection, [intent.id for intent, _ in ended])
    postponed = [_postponement(each, results[each.id]) for each in intents if each.id in results]
    outbox.postpone_many(connection, [each for each in postponed if each is not None])
    answers = [_answer(intent, result) for intent, result in ended]
    audit.answer_many(connection, [each for each in answers if each is not None])
    for _, result in ended:
        if isinstance(result, Unaudited):
            audit.count_unverified(connection, _OUTBOX, _NOT_AUDITED)


def _is_ended(result: Result | None) -> bool:
    return isinstance(result, Applied | Refused | Unaudited)


def _reopens(intent: Intent, result: Result) -> bool:
    return isinstance(result, Refused) and intent.kind == KIND


def _reopened(ended: Sequence[tuple[Intent, Result]]) -> Iterator[tuple[uuid.UUID, str]]:
    for intent, result in ended:
        if _reopens(intent, result):
            yield uuid.UUID(intent.payload["letter_id"]), intent.payload["status_before"]


def _answer(intent: Intent, result: Result) -> audit.Answer | None:
    match result:
        case Applied(detail):
            return audit.Answer(intent.id, Outcome.APPLIED, detail)
        case Refused(why):
            return audit.Answer(intent.id, audit.refused(why))
        case _:
            return None


def _postponement(intent: Intent, result: Result) -> Postponement | None:
    wait_s = min(2.0 ** min(intent.attempts, 10), LONGEST_WAIT_S)
    match result:
        case Postponed(why, known):
            return Postponement(intent.id, wait_s, why, known)
        case Failed(error):
            return Postponement(intent.id, wait_s, f"{type(error).__name__}: {error}")
        case Awaits(why, first_s, longest_s, known):
            wait_s = min(first_s * 2 ** min(intent.attempts, 10), longest_s)
            return Postponement(intent.id, wait_s, why, known, awaits_attempt=True)
        case _:
            return None


def log_results(intents: Sequence[Intent], results: Results, backoff: FailureBackoff) -> None:
    """Log what is committed; `backoff` limits the lines about intents that are tried again."""
    for intent in intents:
        result = results.get(intent.id)
        if result is not None:
            _log(intent, result, backoff)


def _log(intent: Intent, result: Result, backoff: FailureBackoff) -> None:
    request, what = str(intent.id), f"the {intent.kind} of a job is postponed"
    facts = {"request": request}
    if intent.is_for_a_job:
        facts["job_id"] = intent.job_id
    match result:
        case Applied() | Refused():
            backoff.succeeded(what, request)
            _log_answer(intent, result, facts)
        case Postponed(why):
            # The waits of this intent are in Postgres, so that they survive this relay.
            backoff.failed(what, why, action="relay_postponed", item=request, facts=facts)
        case Failed(error):
            log.error(
                "the intent %s failed with an unexpected error; the relay tries it again later",
                request,
                exc_info=error,
                extra={"action": "relay_failed", **facts},
            )
        case Unaudited():
            log.error(
                "the request %s to %s job %s is not in the audit log, so it is not carried out. "
                "No verb of Taskyard wrote it: find out who can write to the outbox",
                request,
                intent.kind,
                intent.job_id,
                extra={"action": "relay_not_audited", "request": request},
            )
        case Awaits():
            pass  # the operator sees why: `wait_outcome` and `taskyard audit show`


def _log_answer(intent: Intent, result: Applied | Refused, facts: Mapping[str, str]) -> None:
    refused, replay = isinstance(result, Refused), intent.kind == KIND
    outcome = f"refused: {result.why}" if isinstance(result, Refused) else Outcome.APPLIED
    action = ("relay_refused" if refused else "relay_applied") if replay else "relay_answered"
    log.log(
        logging.WARNING if refused and replay else logging.INFO,
        "the request to %s is %s",
        f"{intent.kind} job {intent.job_id}" if intent.is_for_a_job else intent.kind,
        outcome,
        extra={"action": action, **facts},
    )
