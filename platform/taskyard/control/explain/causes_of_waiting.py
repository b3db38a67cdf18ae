"""Why a job waits: a switch, its time, its message, its queue, or the workers of its queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from taskyard.broker import PARKED_S
from taskyard.clock import us_of
from taskyard.control.explain.cause_kinds import CauseKind
from taskyard.control.explain.explanation import Cause, cause_of
from taskyard.control.explain.job_facts import Facts, FromBroker, FromRecords, Where
from taskyard.control.explain.wording import by, cause_text, count_of, moment_us, when
from taskyard.inspection.message_after_worker_death import held_by
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_of_job import start_worker
from taskyard.inspection.search_budget import GRACE_S
from taskyard.jobs.states import State
from taskyard.switches import Kind, Mode, SwitchField, SwitchScope, SwitchState, fields_of

__all__ = ["causes_of_waiting"]

K = CauseKind
_MOST_WORKERS: Final = 5


def causes_of_waiting(facts: Facts, said: FromRecords) -> Iterator[Cause]:
    """Yield every cause why a job that neither runs nor has ended waits."""
    switches = list(_switches(facts, said))
    for field, state in switches:
        yield _switch(field, state, said.now_us)
    yield from _of_record(facts, said)
    if facts.broker is None or _is_left_at_rabbitmq(said, facts.broker):
        return
    parked = [field for field, state in switches if not _holds_queue(field, state)]
    yield from _of_message(facts, said, facts.broker, parked)
    if not any(_holds_queue(field, state) for field, state in switches):
        yield from _of_workers(facts, said, facts.broker, parked=bool(parked))
    if facts.broker.stale:
        stale = ", ".join(":".join(map(str, one)) for one in facts.broker.stale)
        yield cause_of(K.STALE_MESSAGE, {"stale": stale})


def _is_left_at_rabbitmq(said: FromRecords, found: FromBroker) -> bool:
    """Return whether the message is still in the old queue of a rerouted job, unseen."""
    return said.record.state is State.REROUTED and found.where is Where.RABBITMQ


# -- switches --------------------------------------------------------------------------------------


def _switches(facts: Facts, said: FromRecords) -> Iterator[tuple[SwitchField, SwitchState]]:
    """Yield the switches that keep the job from running.

    Without a record the type and the domain are unknown, but what holds its message is known.
    """
    parked = () if facts.broker is None else facts.broker.parked
    for field in fields_of(facts.queue, facts.fact("type"), facts.fact("domain") or None):
        state = said.switches.get(field)
        if state is None:
            continue
        admitted_us = said.record.number("admitted") or said.now_us
        if state.mode is Mode.HOLD or admitted_us >= state.since_us:
            yield field, state
    if said.record.state is State.NONE:
        for field, state in said.switches.items():
            if str(field) in parked and field.scope in (SwitchScope.TYPE, SwitchScope.DOMAIN):
                yield field, state


def _holds_queue(field: SwitchField, state: SwitchState) -> bool:
    """Return whether workers stop to read the whole queue for this switch."""
    return state.mode is Mode.HOLD and field.scope in (SwitchScope.ALL, SwitchScope.QUEUE)


def _switch(field: SwitchField, state: SwitchState, now_us: int) -> Cause:
    kind = K.KILLED if state.mode is Mode.HOLD else K.HELD_AS_NEW
    until = f", until {when(state.until_us, now_us)}" if state.until_us else ", without an end"
    values = {
        "on": field.on,
        "queue": field.name,
        "since": moment_us(state.since_us),
        "until": until,
        "operator": state.operator or "an unknown operator",
        "reason": state.reason or "no reason is known",
    }
    chosen = K.PAUSED if field.kind is Kind.PAUSE else kind
    return cause_of(chosen, values, mode=state.mode, until_us=state.until_us or None)


def _switch_name(field: str) -> str:
    """Name the switch of a field's text, which another program may have written."""
    kind, _, on = field.partition(" ")
    return f"the pause of {on}" if kind == Kind.PAUSE else f"the kill switch on {on}"


# -- the record ------------------------------------------------------------------------------------


def _of_record(facts: Facts, said: FromRecords) -> Iterator[Cause]:
    record = said.record
    found = facts.broker is not None and facts.broker.found
    if record.fields.get("published") == "0" and not found:
        admitted = when(record.number("admitted"), said.now_us)
        yield cause_of(K.UNPUBLISHED, {"admitted": admitted})
    if said.replaced:
        yield cause_of(K.REPLACED, {"job": facts.job_id})
    if record.state is State.REROUTED:
        yield _rerouted(facts, said)
    due_us = record.number("due")
    if record.state is State.RETRYING and due_us > said.now_us:
        history = record.history
        last = {"code": history[-1].code, "message": history[-1].error} if history else {}
        values = {
            "job": facts.job_id,
            "attempt": record.fields.get("begins", "?"),
            "cause": cause_text(last),
            "due": when(due_us, said.now_us),
        }
        yield cause_of(K.RETRY_AT, values, due_us=due_us)


def _rerouted(facts: Facts, said: FromRecords) -> Cause:
    stored, record = facts.postgres, said.record
    verbs = {} if stored is None else stored.verbs
    broker = facts.broker
    found = "" if broker is None or broker.place is None else broker.queue
    old = found or ("" if stored is None else stored.old_queue)
    values = {
        "queue": record.queue,
        "by": by(verbs.get(record.fields.get("verb", ""))),
        "start_worker": start_worker(facts.settings, old or "OLD_QUEUE"),
    }
    if old and broker is not None and broker.old is not None and broker.old.consumers == 0:
        return cause_of(K.OLD_QUEUE_UNREAD, {**values, "old": old})
    where = f"queue {old}" if old else "the queue where it was"
    return cause_of(K.REROUTED, {**values, "old": where})


# -- the message -----------------------------------------------------------------------------------


def _of_message(
    facts: Facts, said: FromRecords, found: FromBroker, switches: Sequence[SwitchField]
) -> Iterator[Cause]:
    queue = found.queue or facts.queue
    values: dict[str, object] = {
        "job": facts.job_id,
        "queue": queue,
        "holder": found.holder,
        "why": found.why,
        "start_worker": start_worker(facts.settings, queue),
    }
    match found.where:
        case Where.QUEUE:
            yield from _queued(found, values)
        case Where.DELAYED if found.parked:
            named = " is off and ".join(map(_switch_name, found.parked))
            more = {"place": "apart from its queue", "switch": named, "back": "seconds"}
            yield cause_of(K.PARKED, {**values, **more})
        case Where.DELAYED if found.due_us and said.record.state is not State.RETRYING:
            due = when(found.due_us, said.now_us)
            yield cause_of(K.SCHEDULED, {**values, "due": due}, due_us=found.due_us)
        case Where.LIVE_WORKER:
            yield cause_of(K.PREFETCHED, values)
        case Where.DEAD_WORKER if found.death is not None and found.death.back is not None:
            yield cause_of(K.HELD_BY_DEAD, {**values, "message": held_by(found.death.back)})
        case Where.ELSEWHERE:
            yield cause_of(K.MESSAGE_ELSEWHERE, values)
        case Where.UNSEEN:
            yield cause_of(K.MESSAGE_UNSEEN, values)
        case Where.NOWHERE if not said.replaced:
            yield from _nowhere(facts, said)
        case Where.RABBITMQ:
            yield from _at_rabbitmq(said, found, values, switches)


def _queued(found: FromBroker, values: dict[str, object]) -> Iterator[Cause]:
    place = found.place
    if place is None:
        return
    more = {**values, "waiting": place.waiting, "ahead": place.ahead}
    if not place.exact:
        yield cause_of(K.QUEUED_BEHIND_AT_LEAST, more)
        return
    verb = "is" if place.ahead == 1 else "are"
    before = f"{count_of(place.ahead, 'message')} {verb} before it"
    yield cause_of(K.QUEUED, {**more, "before": before if place.ahead else "it is the next"})


def _nowhere(facts: Facts, said: FromRecords) -> Iterator[Cause]:
    record = said.record
    if (
        record.state not in (State.ACCEPTED, State.RETRYING)
        or record.fields.get("published") == "0"
    ):
        return
    names = ("admitted", "started", "decided", "due")
    touched_us = max(record.number(name) for name in names)
    if said.now_us - touched_us < us_of(GRACE_S):
        touched = when(touched_us, said.now_us)
        more = {"job": facts.job_id, "touched": touched, "grace": f"{GRACE_S:g}"}
        yield cause_of(K.MESSAGE_MOVES, more)
    else:
        yield cause_of(K.MESSAGE_MISSING, {"job": facts.job_id})


def _at_rabbitmq(
    said: FromRecords,
    found: FromBroker,
    values: dict[str, object],
    switches: Sequence[SwitchField],
) -> Iterator[Cause]:
    waits_for_its_time = said.record.number("due") > said.now_us
    unpublished = said.record.fields.get("published") == "0"
    if waits_for_its_time or unpublished or found.state is None or said.replaced:
        return
    if switches:
        place = f"in queue {values['queue']}, or apart from it if a worker has taken it,"
        more = {"place": place, "switch": _switch_name(str(switches[0])), "back": f"{PARKED_S:g} s"}
        yield cause_of(K.PARKED, {**values, **more})
        return
    waiting = found.state.waiting
    shown = "an unknown number of" if waiting is None else waiting
    yield cause_of(K.QUEUED_AT_RABBITMQ, {**values, "waiting": shown})


# -- the workers -----------------------------------------------------------------------------------


def _of_workers(
    facts: Facts, said: FromRecords, found: FromBroker, *, parked: bool
) -> Iterator[Cause]:
    # What waits for its own time, or is with a worker, needs no other worker now.
    if found.state is None or found.where in (Where.LIVE_WORKER, Where.ELSEWHERE):
        return
    queue = found.queue or facts.queue
    values: dict[str, object] = {
        "queue": queue,
        "start_worker": start_worker(facts.settings, queue),
    }
    match found.state:
        case QueueState(consumers=None):
            yield cause_of(K.CONSUMERS_UNKNOWN, values)
        case QueueState(consumers=0):
            yield cause_of(K.NO_CONSUMER, {**values, "workers": _workers(facts, said)})
        case QueueState(consumers=int() as count) if found.where in (Where.QUEUE, Where.RABBITMQ):
            waits_for_its_time = said.record.number("due") > said.now_us
            if waits_for_its_time or (parked and found.where is Where.RABBITMQ):
                return
            consumers = f"{count_of(count, 'worker')} read{'s' * (count == 1)}"
            held = "" if found.held is None else f", and workers hold {found.held} messages"
            more = {**values, "consumers": consumers, "held": held}
            yield cause_of(K.CONSUMERS_BUSY, more)


def _workers(facts: Facts, said: FromRecords) -> str:
    """Return which workers live and what each reads, within the reader's bounds."""
    names = {facts.settings.broker_name(name): name for name in facts.settings.queues}
    shown = []
    for worker in sorted(said.workers, key=lambda one: one.worker):
        read = [names.get(queue, queue) for queue in worker.queues]
        seen = [queue for queue in read if facts.reader is None or facts.reader.sees(queue, None)]
        if seen or facts.reader is None:
            shown.append(f"{worker.worker} reads {', '.join(seen) or 'no queue now'}")
    if not shown:
        return "No other worker runs" if facts.reader is None else "No worker that you may see runs"
    more = len(shown) - _MOST_WORKERS
    said_more = f"; and {more} more" if more > 0 else ""
    return f"Those that run: {'; '.join(shown[:_MOST_WORKERS])}{said_more}"
