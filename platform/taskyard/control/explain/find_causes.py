"""Conclude from the facts why a job is where it is: which causes of the table hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from taskyard.access import Action
from taskyard.clock import to_us
from taskyard.control.explain.cause_kinds import CauseKind, Server
from taskyard.control.explain.causes_of_waiting import causes_of_waiting
from taskyard.control.explain.explanation import Cause, cause_of
from taskyard.control.explain.job_facts import Facts, FromPostgres, FromRecords, Where
from taskyard.control.explain.wording import ago, by, cause_text, moment_us, when
from taskyard.inspection.message_after_worker_death import MessageState
from taskyard.inspection.queue_of_job import start_worker
from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN
from taskyard.jobs.replay_by_category import NEEDS, Needs
from taskyard.jobs.states import State
from taskyard.wire import letter_id

__all__ = ["find_causes"]

K = CauseKind
_LETTERS: Final = {
    Needs.NOTHING: K.LETTER,
    Needs.EDITED_PAYLOAD: K.LETTER_NEEDS_PAYLOAD,
    Needs.FORCE: K.LETTER_NEEDS_FORCE,
    Needs.A_NEW_JOB: K.LETTER_NOT_REPLAYABLE,
}
_ENDED_BY: Final = {
    State.COMPLETED: (K.COMPLETED, Action.FORCE_COMPLETE),
    State.CANCELLED: (K.CANCELLED, Action.CANCEL_REQUEST),
    State.ABORTED: (K.ABORTED, Action.ABORT_REQUEST),
    State.FAILED: (K.FAILED, Action.DELETE_DEAD_LETTER),
}


def find_causes(facts: Facts) -> tuple[Cause, ...]:
    """Return every cause that holds, in the order of the table: the blocking one first."""
    order = {kind: at for at, kind in enumerate(CauseKind)}
    found = [*_of_state(facts), *_of_requests(facts), *_of_outages(facts)]
    return tuple(sorted(found, key=lambda cause: order[cause.kind]))


def _of_state(facts: Facts) -> Iterator[Cause]:
    if facts.records is None:
        yield from _without_records(facts)
        return
    match facts.records.record.state:
        case State.NONE:
            yield from _without_a_record(facts, facts.records)
        case State.COMPLETED | State.CANCELLED | State.ABORTED | State.FAILED as ended:
            yield _ended(facts, ended)
        case State.DEAD_LETTERED:
            yield _letter(facts, facts.records)
        case State.RUNNING:
            yield from _running(facts, facts.records)
        case State.ACCEPTED | State.RETRYING | State.REROUTED:
            yield from causes_of_waiting(facts, facts.records)
        case never:
            assert_never(never)


def _without_records(facts: Facts) -> Iterator[Cause]:
    """Say what the ledger has; the records' outage is another cause."""
    row = None if facts.postgres is None else facts.postgres.row
    if row is not None:
        changed = f"{row['updated_at']:%Y-%m-%d %H:%M:%S} UTC"
        yield cause_of(
            K.LEDGER_ONLY, {"job": facts.job_id, "state": row["state"], "changed": changed}
        )


def _without_a_record(facts: Facts, said: FromRecords) -> Iterator[Cause]:
    row = None if facts.postgres is None else facts.postgres.row
    if row is not None and State(row["state"]) in _ENDED_BY:
        yield _ended(facts, State(row["state"]))
    elif facts.broker is not None and facts.broker.found:
        yield from causes_of_waiting(facts, said)
        yield cause_of(K.NO_RECORD_YET, {})
    elif row is not None and row["state"] == State.DEAD_LETTERED and facts.postgres is not None:
        yield _stored_letter(facts, facts.postgres)
    elif row is not None:
        changed = f"{row['updated_at']:%Y-%m-%d %H:%M:%S} UTC"
        yield cause_of(K.RECORD_LOST, {"state": row["state"], "changed": changed})
    elif not facts.outages:
        yield _unknown_id(facts, said)


def _unknown_id(facts: Facts, said: FromRecords) -> Cause:
    """Say that nothing knows the id, and what was not searched for it."""
    unless = ""
    if facts.broker is not None and facts.broker.where is Where.RABBITMQ:
        queues = ", ".join(said.app_queues)
        among = f" (of installed apps: {queues})" if queues else ""
        unless = (
            ". A task that was not sent by `enqueue` may also wait in a queue of RabbitMQ, which "
            f"cannot be searched{among}"
        )
    elif facts.broker is not None and facts.broker.where is not Where.NOWHERE:
        unless = f". The broker was not searched wholly: {facts.broker.why}"
    return cause_of(K.UNKNOWN_ID, {"kept": facts.settings.ledger_retention_days, "unless": unless})


# -- ended -----------------------------------------------------------------------------------------


def _ended(facts: Facts, state: State) -> Cause:
    kind, action = _ENDED_BY[state]
    record = None if facts.records is None else facts.records.record
    ended_us = 0 if record is None else record.number("ended")
    row = (facts.postgres.row if facts.postgres is not None else None) or {}
    if not ended_us and row.get("ended_at") is not None:
        ended_us = to_us(row["ended_at"])
    applied = {} if facts.postgres is None else facts.postgres.applied
    who = applied.get(action)
    values = {"job": facts.job_id, "ended": moment_us(ended_us), "by": by(who)}
    return cause_of(kind, values, ended_us=ended_us or None)


def _letter(facts: Facts, said: FromRecords) -> Cause:
    record = said.record
    letter = letter_id(facts.job_id, record.epoch, record.generation)
    values = {
        "letter": letter,
        "died": moment_us(record.number("decided") or record.number("ended")),
        "cause": cause_text(record.cause),
    }
    if facts.postgres is None:
        return cause_of(K.LETTER_UNREAD, values)
    if facts.postgres.letter is None:
        return cause_of(K.LETTER_NOT_STORED, values)
    return _stored_letter(facts, facts.postgres)


def _stored_letter(facts: Facts, stored: FromPostgres) -> Cause:
    letter = stored.letter
    if letter is None:
        row = stored.row or {}
        values = {"letter": row.get("letter_id"), "died": "", "cause": row.get("code") or "unknown"}
        return cause_of(K.LETTER_NOT_STORED, values)
    category = Category(letter["failure_category"])
    code, reason = letter["failure_code"], letter["failure_reason"]
    values = {
        "letter": letter["id"],
        "died": f"{letter['decided_at']:%Y-%m-%d %H:%M:%S} UTC",
        "category": category.value,
        "cause": cause_text({"code": code, "message": reason}),
        "status": letter["status"],
        "why_not": stored.why_not or "",
    }
    kind = _LETTERS[NEEDS[category]]
    if letter["status"] not in OPEN:
        kind = K.LETTER_NOT_REPLAYABLE
    elif stored.why_not is not None and kind is K.LETTER:
        # Marked by hand as not eligible, unless no force helps: a copy of a fanout exchange.
        kind = K.LETTER_NEEDS_FORCE if "force" in stored.why_not else K.LETTER_NOT_REPLAYABLE
    return cause_of(kind, values)


# -- an attempt ------------------------------------------------------------------------------------


def _running(facts: Facts, said: FromRecords) -> Iterator[Cause]:
    record, now_us = said.record, said.now_us
    until_us = record.number("lease_until")
    death = None if facts.broker is None else facts.broker.death
    values: dict[str, object] = {
        "job": facts.job_id,
        "attempt": record.fields.get("begins", "?"),
        "started": moment_us(record.number("started")),
        "worker": record.fields.get("worker") or "without a name",
        "lives": "lives" if said.worker_lives else "is dead",
        "until": when(until_us, now_us),
        "message": _sentence(facts, death, said),
        "start_worker": start_worker(facts.settings, facts.queue),
    }
    own = {"lease_until_us": until_us, "worker_lives": said.worker_lives}
    if until_us < now_us:
        yield cause_of(K.LEASE_EXPIRED, {**values, "until": ago(until_us, now_us)}, **own)
    elif said.worker_lives:
        yield cause_of(K.RUNNING, values, **own)
    else:
        yield cause_of(K.WORKER_DEAD, values, **own)
    if "cancel" in record.fields:
        request = record.fields["cancel"]
        asked = when(record.number("cancel_at"), now_us)
        who = {} if facts.postgres is None else facts.postgres.verbs
        more = {"job": facts.job_id, "request": request, "asked": asked}
        yield cause_of(K.CANCEL_REQUESTED, {**more, "by": by(who.get(request))})


def _sentence(facts: Facts, death: MessageState | None, said: FromRecords) -> str:
    if facts.broker is None:
        return "unknown, the broker does not answer"
    if death is None:
        return "with its worker"
    return death.sentence(facts.queue, said.record.number("lease_until"), said.now_us)


# -- what else holds -------------------------------------------------------------------------------


def _of_requests(facts: Facts) -> Iterator[Cause]:
    if facts.postgres is None:
        return
    # The record has these already; they wait for the attempt or the message, another cause.
    fields = {} if facts.records is None else facts.records.record.fields
    met = {fields.get("verb"), fields.get("cancel")}
    for request in facts.postgres.requests:
        if str(request.request) in met:
            continue
        who = (request.operator, request.reason) if request.operator else None
        values = {
            "verb": request.kind,
            "asked": f"{request.at:%Y-%m-%d %H:%M:%S} UTC",
            "by": by(who),
            "why": request.why or "no relay has tried it",
            "request": request.request,
        }
        yield cause_of(K.REQUEST_OPEN, values)
    state = facts.state
    acts = facts.postgres.requests or state is State.DEAD_LETTERED
    if facts.postgres.gate is not None and acts:
        yield cause_of(K.GATE_CLOSED, {"why": facts.postgres.gate})


_SILENT: Final[dict[Server, CauseKind]] = {
    Server.RECORDS: K.RECORDS_SILENT,
    Server.BROKER: K.BROKER_SILENT,
    Server.POSTGRES: K.POSTGRES_SILENT,
}


def _of_outages(facts: Facts) -> Iterator[Cause]:
    for server, why in facts.outages.items():
        yield cause_of(_SILENT[server], {"why": why})
