"""A newer request for a job withdraws what an older open one would do, in the same transaction.

So no verb waits behind one that is scheduled, postponed or deep in the lane of bulk verbs. The
table of older and newer verbs is in docs/states.md.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import Connection

from taskyard import audit, outbox
from taskyard.audit import Answer
from taskyard.control.job_snapshot import ReadsRecords
from taskyard.control.letter_status import reopen_many
from taskyard.jobs.states import Event
from taskyard.outbox import Intent, Older

__all__ = ["Withdrawn", "withdraw_older"]

_VERBS: Final = frozenset(
    {Event.REPLAY, Event.CANCEL, Event.ABORT, Event.FORCE_COMPLETE, Event.REROUTE}
)
# What the operator asks for; the rest of a payload is what was seen of the job.
_ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    Event.REPLAY: ("letter_id", "queue", "edit"),
    Event.FORCE_COMPLETE: ("summary",),
    Event.REROUTE: ("to_queue",),
}
# The fields of a record that name the request which has changed it.
_CHANGED_BY: Final = ("request", "verb", "cancel")


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of the older requests: `withdrawn`, or carried out `before` the newer one.

    `reopened` are the letters of withdrawn replays, and the statuses that they have again.
    """

    withdrawn: tuple[uuid.UUID, ...] = ()
    before: tuple[uuid.UUID, ...] = ()
    reopened: Mapping[uuid.UUID, str] = field(default_factory=dict)

    def detail(self) -> dict[str, object]:
        """Return what the newer request's row in the audit log says of it."""
        named = {"withdrew": self.withdrawn, "after": self.before}
        return {name: [str(each) for each in ids] for name, ids in named.items() if ids}


def withdraw_older(
    connection: Connection, records: ReadsRecords | None, newer: Intent
) -> Withdrawn:
    """Withdraw the older open requests of the job of `newer`, which the caller adds afterwards.

    Each is answered `refused`, and the letter of a replay has its former status again. Not
    withdrawn is a request that has changed the job's record, or may have, because `records` cannot
    be read; one that asks for the same; and one that a relay carries out at this moment. `newer`
    comes after these, and a relay tries them at once; it does not wait for one that only waits for
    an attempt to end.
    """
    found = [each for each in outbox.lock_older(connection, newer.job_id) if _is_verb(each)]
    if not found:
        return Withdrawn()
    changed_by = _changed_by(records, newer.job_id)
    stays = [each for each in found if _stays(each, newer, changed_by)]
    leaves = [each.intent for each in found if each not in stays]
    before = tuple(each.intent.id for each in stays if not each.awaits_attempt)
    outbox.bring_forward(connection, before, bulk=newer.bulk)
    reopened = {
        uuid.UUID(each.payload["letter_id"]): each.payload["status_before"]
        for each in leaves
        if each.kind == Event.REPLAY
    }
    reopen_many(connection, reopened)
    outbox.finish_many(connection, [each.id for each in leaves])
    audit.answer_many(connection, [_answer(each, newer) for each in leaves])
    return Withdrawn(tuple(each.id for each in leaves), before, reopened)


def _is_verb(older: Older) -> bool:
    return older.intent.kind in _VERBS


def _changed_by(records: ReadsRecords | None, job_id: str) -> frozenset[str] | None:
    """Return the requests that have changed the record; None if it cannot be read."""
    if records is None:
        return None
    try:
        record = records.read(job_id)
    except RedisError:
        return None
    return frozenset(record.fields[name] for name in _CHANGED_BY if name in record.fields)


def _stays(older: Older, newer: Intent, changed_by: frozenset[str] | None) -> bool:
    if older.scheduled:
        # No relay has ever claimed it. A purge, which only cancels, carries out its own at once.
        return older.intent.kind != Event.REPLAY
    if changed_by is None or str(older.intent.id) in changed_by or older.has_changed_the_record:
        return True
    return _asked_for(older.intent) == _asked_for(newer)


def _asked_for(intent: Intent) -> tuple[Any, ...]:
    asked = [intent.payload.get(name) for name in _ASKED.get(intent.kind, ())]
    if intent.kind == Event.FORCE_COMPLETE:
        # Celery's encoded result also has the time when it was asked for.
        asked.append(json.loads(intent.payload["result"])["result"])
    return (intent.kind, *asked)


def _answer(older: Intent, newer: Intent) -> Answer:
    why = f"withdrawn by request {newer.id}, which asks to {newer.kind} the job; nothing was done"
    return Answer(older.id, audit.refused(why), {"withdrawn_by": str(newer.id)})
