"""A live job's worker, lease and heartbeat, and where the job's message is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from taskyard.broker import is_amqp
from taskyard.broker.connection import check_broker_url
from taskyard.clock import SYSTEM_CLOCK, from_us, us_of
from taskyard.errors import TaskyardError
from taskyard.inspection.broker_keys_to_search import survey
from taskyard.inspection.find_messages import find_held, find_of_job
from taskyard.inspection.message_after_worker_death import MessageState, Place, look_at_message
from taskyard.inspection.record_fields import read_records
from taskyard.inspection.search_budget import Budget
from taskyard.inspection.unacked_message_owners import Return, look_for_holders
from taskyard.jobs.states import State
from taskyard.records import Fleet, Record, Records, lives
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["JobHolder", "find_holder"]

_HELD = frozenset({State.ACCEPTED, State.RUNNING, State.RETRYING})
# A person waits for the answer; a longer backlog than can be read meanwhile is unknown.
_SEARCH_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class JobHolder:
    """Which worker holds a job.

    `lease_until` and `worker` belong to a running job; `worker_lives` is whether the worker's
    heartbeat was seen. `message` says where the job's message is, if a dead worker had taken it or
    if that is unknown; `sentence` says the same to a person.
    """

    lease_until: datetime | None = None
    expired: bool = False
    worker: str = ""
    worker_lives: bool | None = None
    message: MessageState | None = None
    sentence: str | None = None

    @property
    def orphaned(self) -> bool:
        """Whether the worker that runs the job is dead."""
        return self.worker_lives is False

    @property
    def back(self) -> Return | None:
        """When a dead worker's message comes back."""
        return None if self.message is None else self.message.back

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        back = self.back
        at = None if back is None or back.at_us is None else from_us(back.at_us)
        return {
            "lease_until": self.lease_until,
            "lease_expired": self.expired,
            "worker": self.worker or None,
            "worker_lives": self.worker_lives,
            "held_by_dead": None if back is None else back.holder,
            "back_at": at,
            "back_how": None if back is None else back.how,
            "message_place": None if self.message is None else self.message.place,
            "message": self.sentence,
        }


def find_holder(settings: Settings, records: Records, record: Record) -> JobHolder | None:
    """Return which worker holds a job that has not ended.

    Returns None for an ended job, and if the records do not answer.
    """
    if record.state not in _HELD:
        return None
    try:
        now_us, members = Fleet(records.client, settings.namespace).read()
        until_us = record.number("lease_until")
        if record.state is not State.RUNNING:
            message = _message(settings, records, record, orphaned=False)
            return JobHolder(message=message, sentence=_sentence(message, record, now_us))
        worker = record.fields.get("worker", "")
        alive = lives(members, worker, record.number("started"), now_us)
        message = _message(settings, records, record, orphaned=not alive)
    except RedisError:
        return None
    said = _sentence(message, record, now_us)
    return JobHolder(from_us(until_us), until_us < now_us, worker, alive, message, said)


def _sentence(message: MessageState | None, record: Record, now_us: int) -> str | None:
    if message is None:
        return None
    return message.sentence(record.queue, record.number("lease_until"), now_us)


def _message(
    settings: Settings, records: Records, record: Record, *, orphaned: bool
) -> MessageState | None:
    """Return where the message is that a dead worker had taken; None if no dead worker had.

    If the job's worker is not dead, only a message is found that a dead worker holds.
    """
    try:
        if is_amqp(settings):
            return MessageState(Place.RABBITMQ) if orphaned else None
        url = check_broker_url(settings)
        with connect(url, retries=0, variable=BROKER) as broker, reachable(url, variable=BROKER):
            return _find(settings, records, broker, record, orphaned=orphaned)
    except TaskyardError as error:
        return MessageState(Place.UNKNOWN, why=str(error)) if orphaned else None


def _find(
    settings: Settings, records: Records, broker: Redis, record: Record, *, orphaned: bool
) -> MessageState | None:
    where = survey(settings, records, broker, [record.queue])
    (seen,) = read_records(records.client, records.keys, [record.job_id])
    budget = Budget(SYSTEM_CLOCK, _SEARCH_S)
    if orphaned:
        messages = find_of_job(broker, where, seen, budget)
        holders = look_for_holders(settings, records, broker, where)
        if budget.spent and not messages.serves(seen):
            why = f"too many messages wait to find it within {_SEARCH_S:g} s"
            return MessageState(Place.UNKNOWN, why=why)
        return look_at_message(seen, messages, broker, where, holders)
    holding = find_held(broker, where, budget, record.job_id).holding(seen)
    if not holding:
        return None
    holders = look_for_holders(settings, records, broker, where)
    taken = [(held, broker.zscore(held.index, held.tag)) for held in holding]
    returns = [holders.judge(held, seen, _us(taken_s)) for held, taken_s in taken]
    dead = [one for one in returns if one is not None]
    if len(dead) < len(returns):
        return None
    return MessageState(Place.DEAD_WORKER, min(dead, key=lambda one: one.at_us or float("inf")))


def _us(taken_s: Any) -> int:
    return us_of(float(taken_s or 0))
