"""Carry out a replay: check it, change the record in one step (compare-and-set), and publish."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from taskyard.control.letter_status import reopen
from taskyard.control.letters_of_ended_jobs import close_letters_of
from taskyard.control.replayed_message import Edit, captured, edited, for_job
from taskyard.database.tables import LETTERS
from taskyard.errors import Refused
from taskyard.outbox import Intent
from taskyard.queues import fitting_priority
from taskyard.relay.ports import Opened, PublisherPort, RecordsPort
from taskyard.settings import Settings
from taskyard.wire import RawMessage, Stamp, unpack

__all__ = ["Replay", "open_generation", "prepare", "publish", "reopen_letter"]

# A replay was requested now: the sender's old deadlines no longer apply.
_STRIPPED: Final = ("expires", "eta")


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything that a replay needs, from its intent and its dead letter."""

    request_id: uuid.UUID
    job_id: str
    epoch: int
    generation: int
    job_type: str
    queue: str
    priority: int | None
    message: RawMessage


def prepare(connection: Connection, intent: Intent, settings: Settings) -> Replay:
    """Read the dead letter, and check everything that could stop the publication later.

    Raises `Refused`, `UnknownQueue`.
    """
    row = _letter(connection, intent)
    message = for_job(captured(row), intent.job_id)
    edit = intent.payload["edit"]
    queue = intent.payload["queue"] or row["queue"]
    _check_packed(message)
    return Replay(
        request_id=intent.id,
        job_id=intent.job_id,
        epoch=intent.epoch,
        generation=row["generation"],
        job_type=row["job_type"],
        queue=queue,
        priority=_priority(settings, queue, row),
        message=_edited(message, edit, settings),
    )


def open_generation(records: RecordsPort, replay: Replay) -> Opened:
    """Open the generation in the record in one step (compare-and-set); raises `Refused`."""
    return records.replay(
        job_id=replay.job_id,
        epoch=replay.epoch,
        generation=replay.generation,
        request_id=str(replay.request_id),
        job_type=replay.job_type,
        queue=replay.queue,
        priority=replay.priority,
    )


def publish(publisher: PublisherPort, replay: Replay, opened: Opened) -> None:
    """Publish the message of the generation that was opened; raises `PublishFailed`."""
    stamp = Stamp(
        epoch=replay.epoch,
        generation=opened.generation,
        seq=opened.seq,
        sent_us=opened.now_us,
        policy=_policy(replay.message),
    )
    publisher.publish(
        replay.message,
        queue=replay.queue,
        priority=replay.priority,
        job_id=replay.job_id,
        stamp=stamp,
        strip=_STRIPPED,
    )


def reopen_letter(connection: Connection, intent: Intent) -> None:
    """Give a dead letter whose replay was refused its former status back.

    If an operator has ended the job meanwhile, the letter is closed.
    """
    reopen(connection, uuid.UUID(intent.payload["letter_id"]), intent.payload["status_before"])
    close_letters_of(connection, [intent.job_id])


def _edited(message: RawMessage, edit: Any, settings: Settings) -> RawMessage:
    if edit is None:
        return message
    return edited(message, Edit(**edit), settings.max_unpacked_bytes)


def _letter(connection: Connection, intent: Intent) -> Mapping[str, Any]:
    letter_id = uuid.UUID(intent.payload["letter_id"])
    query = select(LETTERS).where(LETTERS.c.id == letter_id)
    # A statement that waited while the row moved from the default partition to a new week's finds
    # it in neither (it was planned with the partitions of before the wait): the next one does.
    for _ in range(2):
        row = connection.execute(query).mappings().one_or_none()
        if row is not None:
            return dict(row)
    raise Refused(f"dead letter {letter_id} is past its retention")


def _check_packed(message: RawMessage) -> None:
    """Raise `Refused` if headers or properties hold packed values that Taskyard did not write."""
    try:
        unpack([message.headers, message.properties])
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise Refused(
            "the letter's headers or properties hold packed values that cannot be read "
            f"({type(error).__name__}: {error}); enqueue a new job"
        ) from error


def _priority(settings: Settings, queue: str, row: Mapping[str, Any]) -> int | None:
    """Return the dead letter's priority within the queue's range.

    A redirect may lead to a queue with a smaller range. In the queue of an existing app, which no
    setting names, the message keeps its own priority.
    """
    if queue == row["queue"] and queue not in settings.queues:
        return None
    priority: int | None = row["priority"]
    return fitting_priority(priority, settings.queue(queue))


def _policy(message: RawMessage) -> Mapping[str, object] | None:
    try:
        stamp = Stamp.read(message.headers)
    except ValueError:
        return None  # a broken stamp has no policy; the new stamp replaces it
    return None if stamp is None else stamp.policy
