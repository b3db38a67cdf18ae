"""Why a job of a yard in memory is where it is, concluded by production's own table of causes."""

from __future__ import annotations

from typing import Any

from taskyard.clock import from_us
from taskyard.control.explain import Explanation
from taskyard.control.explain.explain_job import explanation_of
from taskyard.control.explain.job_facts import Facts, FromBroker, FromPostgres, FromRecords, Where
from taskyard.inspection.queue_position import QueuePlace
from taskyard.jobs.states import State
from taskyard.switches import RedisSwitches
from taskyard.testing.broker import MemoryBroker
from taskyard.testing.letters import LetterShelf
from taskyard.testing.records import MemoryRecords
from taskyard.wire import letter_id
from taskyard.wire.letter_envelope import Letter

__all__ = ["explain"]


def explain(
    records: MemoryRecords, broker: MemoryBroker, letters: LetterShelf, job_id: str
) -> Explanation:
    """Return why the job is where it is; nothing but the record remembers who ended it."""
    record, now_us = records.read(job_id), records.now_us()
    switches = RedisSwitches(records.client, records.settings.namespace).read()
    on = {field: state for field, state in switches.states.items() if state.in_force(now_us)}
    said = FromRecords(now_us, record, switches=on, worker_lives=True)
    found = _find(broker, job_id, record.queue)
    stored = FromPostgres(
        letter=_letter(letters, letter_id(job_id, record.epoch, record.generation))
    )
    if record.state is State.RUNNING:
        found = FromBroker(Where.LIVE_WORKER, record.queue)
    return explanation_of(Facts(records.settings, job_id, {}, None, said, found, stored))


def _find(broker: MemoryBroker, job_id: str, queue: str) -> FromBroker:
    due_us = broker.due_us_of(job_id)
    if due_us is not None:
        return FromBroker(Where.DELAYED, queue, due_us=due_us)
    ahead, waiting = broker.place_of(job_id)
    if ahead is None:
        return FromBroker(Where.NOWHERE, queue)
    return FromBroker(Where.QUEUE, queue, place=QueuePlace(ahead, waiting))


def _letter(letters: LetterShelf, wanted: str) -> dict[str, Any] | None:
    return next((_row(letters, one) for one in letters.all() if one.letter_id == wanted), None)


def _row(letters: LetterShelf, letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "failure_category": letter.category,
        "failure_code": letter.code,
        "failure_reason": letter.error_message,
        "decided_at": from_us(letter.last_failure_us),
        "status": letters.status(letter),
    }
