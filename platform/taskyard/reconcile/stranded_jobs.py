"""Live jobs that no message continues, and the publication that repairs them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from sqlalchemy import Engine, select

from taskyard.broker import Publisher
from taskyard.control.replayed_message import Edit, captured, edited
from taskyard.database.tables import LETTERS, OUTBOX
from taskyard.errors import TaskyardError, UnreadableCopy
from taskyard.inspection.record_fields import Seen
from taskyard.jobs.states import State
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.records import Records
from taskyard.store import Script
from taskyard.wire import RawMessage, Stamp, letter_id
from taskyard.wire.redacted_logs import logger
from taskyard.wire.unconfirmed_message import Unsent

__all__ = ["Republisher", "may_be_stranded", "stranded_findings"]

log = logger(__name__)

_KINDS: Final = {
    State.ACCEPTED: Kind.STRANDED_ACCEPTED,
    State.RUNNING: Kind.STRANDED_RUNNING,
    State.RETRYING: Kind.STRANDED_RETRYING,
}


def may_be_stranded(seen: Seen, settled_us: int) -> bool:
    """Return whether the record alone gives a reason to search for the job's message."""
    match seen.state:
        case State.RUNNING:
            return seen.numbers["lease_until"] < settled_us
        case State.RETRYING:
            return seen.numbers["due"] < settled_us
        case State.ACCEPTED:
            return seen.touched_us < settled_us
        case _:
            return False


def stranded_findings(stranded: Sequence[Seen], republisher: Republisher) -> Iterator[Finding]:
    """Yield a finding for each of the `stranded` records, whose message was not found anywhere."""
    for seen in stranded:
        if republisher.is_owed(seen):
            continue
        kind = _KINDS[seen.state]
        if seen.state is State.ACCEPTED and seen.texts["published"] != "1":
            kind = Kind.UNPUBLISHED
        try:
            mend = republisher.of(seen)
        except UnreadableCopy:
            mend = None
            yield Finding(Kind.COPY_UNREADABLE, seen.job_id)
        yield Finding(kind, seen.job_id, mend)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A stored copy of a message, and when the message is due (microseconds; 0 means now)."""

    message: RawMessage
    stamp: Stamp
    due_us: int = 0


@dataclass(frozen=True, slots=True)
class Republisher:
    """Finds the stored copy of a job's message and publishes it with the record's own stamp.

    There are two sources: the record keeps the first message until the broker has confirmed it, and
    the dead letter keeps the message from which the job was replayed. If the lost message appears
    again, `begin` recognises the same stamp, and one of the two copies is dropped.
    """

    engine: Engine
    records: Records
    publisher: Publisher

    def is_owed(self, seen: Seen) -> bool:
        """Return whether an open intent will make the relay publish the job's message."""
        request = _uuid(seen.texts["request"])
        if seen.generation == 0 or request is None:
            return False
        query = select(OUTBOX.c.id).where(OUTBOX.c.id == request, OUTBOX.c.done_at.is_(None))
        with self.engine.connect() as connection:
            return connection.scalar(query) is not None

    def of(self, seen: Seen) -> Callable[[], bool] | None:
        """Return the publication, None without a copy of the message; raises `UnreadableCopy`."""
        kept = self._first(seen) or self._from_letter(seen)
        return None if kept is None else lambda: self._publish(seen, kept)

    def _first(self, seen: Seen) -> _Kept | None:
        if not seen.texts["unsent"] or seen.position[1:] != (0, 0):
            return None
        try:
            unsent = Unsent.decode(seen.texts["unsent"])
        except ValidationError as error:
            raise UnreadableCopy(f"job {seen.job_id}", error) from error
        return _Kept(
            unsent.message, Stamp(seen.epoch, policy=unsent.policy), unsent.due(seen.epoch)
        )

    def _from_letter(self, seen: Seen) -> _Kept | None:
        if seen.generation == 0:
            return None
        letter = uuid.UUID(letter_id(seen.job_id, seen.epoch, seen.generation - 1))
        request = _uuid(seen.texts["request"])
        with self.engine.connect() as connection:
            row = connection.execute(select(LETTERS).where(LETTERS.c.id == letter))
            found = row.mappings().one_or_none()
            intent = connection.scalar(select(OUTBOX.c.payload).where(OUTBOX.c.id == request))
        if found is None or intent is None:
            return None
        try:
            message = captured(dict(found))
            if intent["edit"] is not None:
                message = edited(message, Edit(**intent["edit"]))
        except TaskyardError:
            return None
        return _Kept(message, Stamp(seen.epoch, seen.generation, seen.numbers["seq"]))

    def _publish(self, seen: Seen, kept: _Kept) -> bool:
        position = [seen.state.value, *seen.position, seen.version]
        key = self.records.keys.record(seen.job_id)
        if not _RECOVER(self.records.client, [key], position):
            return False
        priority = seen.texts["priority"]
        now_us = max(seen.touched_us, kept.due_us)
        stamp = kept.stamp.moved(seq=seen.numbers["seq"], sent_us=now_us)
        queue, level = seen.texts["queue"], int(priority) if priority else None
        if kept.due_us:
            self.publisher.publish_later(
                kept.message,
                queue=queue,
                priority=level,
                job_id=seen.job_id,
                stamp=stamp,
                due_us=kept.due_us,
            )
        else:
            self.publisher.publish(
                kept.message, queue=queue, priority=level, job_id=seen.job_id, stamp=stamp
            )
        self.records.confirm(seen.job_id, seen.epoch)
        log.warning(
            "job %s is published again from its stored copy",
            seen.job_id,
            extra={"action": "reconcile_published", "job_id": seen.job_id},
        )
        return True


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


_RECOVER = Script.of("taskyard.reconcile", "recover")
