"""Purge a queue of a yard in memory, by the rules of the operators' purge.

Alone because it needs the packages of the operators' verbs.
"""

from __future__ import annotations

from taskyard.broker import WaitingMessage
from taskyard.control.purge_outcome import Keep
from taskyard.control.purge_rules import Cancel, Treatment, treat
from taskyard.jobs.states import Event, State
from taskyard.testing.broker import MemoryBroker, Message
from taskyard.testing.operator import MemoryOperator
from taskyard.testing.records import MemoryRecords
from taskyard.wire.lossless_json import unpack

__all__ = ["purge"]


def purge(
    records: MemoryRecords,
    broker: MemoryBroker,
    operator: MemoryOperator,
    queue: str,
    *,
    delayed: bool,
) -> int:
    """Cancel and remove what waits in a queue; return how many jobs were cancelled."""
    cancelled = 0
    for message in broker.waiting_in(queue, delayed=delayed):
        treatment = _treatment(records, message, queue)
        if isinstance(treatment, Keep) and treatment is not Keep.LETTER:
            continue
        if isinstance(treatment, Cancel):
            cancelled += operator.operate(Event.CANCEL, message.job_id) is State.CANCELLED
        broker.remove(message)
        records.note_gone_many([(message.job_id, records.read(message.job_id).epoch)])
    return cancelled


def _treatment(records: MemoryRecords, message: Message, queue: str) -> Treatment:
    raw = message.raw
    headers = {name: unpack(value) for name, value in raw.headers.items()}
    waiting = WaitingMessage(headers, raw.properties, raw.body, message)
    return treat(waiting, records.read(message.job_id), queue, records.now_us())
