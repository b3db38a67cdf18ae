"""Continue the chain of a dead-lettered job that an operator has completed.

Its message is in no queue. So the message that its dead letter holds is published again: the worker
that takes it finds the result, runs nothing, and publishes what follows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, select

from taskyard.clock import to_us
from taskyard.control.replayed_message import captured, for_job
from taskyard.database.tables import LETTERS
from taskyard.errors import Refused
from taskyard.outbox import Intent
from taskyard.records import VerbApplied
from taskyard.relay.ports import PublisherPort
from taskyard.settings import Settings
from taskyard.wire import RawMessage, Stamp
from taskyard.wire.decompression import CompressionFault
from taskyard.wire.letter_envelope import plain_body

__all__ = ["continue_chain"]

_FOLLOWS: Final = ("callbacks", "chain", "chord")
_PARTS: Final = 3
# The sender's old deadlines no longer apply, as with a replay.
_STRIPPED: Final = ("expires", "eta")


def continue_chain(
    connection: Connection,
    settings: Settings,
    publisher: PublisherPort,
    intent: Intent,
    letter_id: uuid.UUID,
    answer: VerbApplied,
) -> str | None:
    """Publish the message again; return what was done, for the audit log, or None.

    None: nothing follows the job, or its letter has no message that can be read. A job in the queue
    of an installed app is left alone, because a worker that only observes would run it again. A
    repeat publishes the message once more, which changes nothing. Raises `PublishFailed`.
    """
    row = connection.execute(select(LETTERS).where(LETTERS.c.id == letter_id)).mappings().first()
    if row is None or row["queue"] not in settings.queues:
        return None
    try:
        message = for_job(captured(dict(row)), intent.job_id)
    except Refused:
        return None
    if not _is_followed(message, settings.max_unpacked_bytes):
        return None
    publisher.publish(
        message,
        queue=row["queue"],
        priority=None,
        job_id=intent.job_id,
        stamp=_stamp(row, answer),
        strip=_STRIPPED,
    )
    return f"its message was published to queue {row['queue']} again, so that its chain goes on"


def _stamp(row: Mapping[Any, Any], answer: VerbApplied) -> Stamp:
    # Where Redis has lost the record, a message of this age is a dead letter, and runs nothing.
    sent_us = to_us(row["decided_at"])
    return Stamp(answer.epoch, answer.generation, answer.seq, sent_us=sent_us)


def _is_followed(message: RawMessage, limit: int) -> bool:
    try:
        parts = json.loads(plain_body(message, limit))
    except (ValueError, RecursionError, CompressionFault):
        return False
    embed = parts[-1] if isinstance(parts, list) and len(parts) == _PARTS else None
    return isinstance(embed, dict) and any(embed.get(name) for name in _FOLLOWS)
