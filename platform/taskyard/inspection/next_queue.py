"""The queue of a waiting job's next message; it can differ from the queue in the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
from pydantic import ValidationError

from taskyard.engine.retry_message import NextMessage
from taskyard.inspection.record_fields import Seen
from taskyard.jobs.states import State
from taskyard.records import Keys, Record

__all__ = ["SUCCESSOR", "next_queues"]

# The job of a replaced task goes on after its replacement, in a chain after the others: until then
# no message has its id, and that is correct.
SUCCESSOR: Final = "\x00successor"
_FIELDS: Final = ("next", "history")


def next_queues(client: redis.Redis, keys: Keys, seen: Sequence[Seen]) -> dict[str, str]:
    """Return the queue of each job's next message by job id.

    It is `SUCCESSOR` if another task that replaces the job comes first, and empty if the queue
    cannot be read.
    """
    waiting = [one for one in seen if one.state is State.RETRYING]
    with client.pipeline(transaction=False) as pipe:
        for one in waiting:
            pipe.hmget(keys.record(one.job_id), _FIELDS)
        rows = pipe.execute()
    found = {one.job_id: one.texts["queue"] for one in seen}
    for one, row in zip(waiting, rows, strict=True):
        found[one.job_id] = _queue(one, row)
    return found


def _queue(seen: Seen, row: Sequence[Any]) -> str:
    fields = {name: raw.decode() for name, raw in zip(_FIELDS, row, strict=True) if raw}
    record = Record(seen.job_id, fields)
    try:
        kept, history = NextMessage.of(record), record.history
    except ValidationError:
        return ""
    if history and history[-1].code == "replaced":
        return SUCCESSOR
    return seen.texts["queue"] if kept is None else kept.queue
