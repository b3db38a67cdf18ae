"""The limit of deliveries: a message that kills its worker before `begin` ends too.

Alone because this rule is looked for by its name, and the consumer is large.
"""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import RedisError

from taskyard.engine.read_message import job_id_of, position_of
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.states import State
from taskyard.wire import Stamp

__all__ = ["deliveries_over_limit"]

_DELIVER: Final = (
    "the number of deliveries of a message was not counted, so a poison message is found later"
)


def deliveries_over_limit(context: WorkerContext, message: Any) -> int | None:
    """Count a redelivered message; return the count if it exceeds the limit, else None."""
    if not (message.delivery_info or {}).get("redelivered"):
        return None
    try:
        count = context.records.attempts.deliver(job_id_of(message))
        context.backoff.succeeded(_DELIVER)
        if count <= context.settings.delivery_limit or _is_decided(context, message):
            return None
    except RedisError as error:
        context.backoff.failed(_DELIVER, error, action="deliver_unreachable")
        return None
    return count


def _is_decided(context: WorkerContext, message: Any) -> bool:
    """Return whether the message's attempt has an outcome that only must be published.

    The publication may take as long as the broker accepts nothing, so the repeated deliveries
    do not make this message a poison message.
    """
    record, stamp = context.records.read(job_id_of(message)), position_of(message) or Stamp(0)
    own = stamp.generation, stamp.seq
    if not stamp.epoch:
        if stamp.nesting != record.number("nesting"):
            return False  # it replaces the record's present task, or was replaced
        first = record.number("nested_generation"), record.number("nested_seq")
        own = first[0], first[1] + stamp.seq
    return record.state is State.DEAD_LETTERED or own < (record.generation, record.number("seq"))
