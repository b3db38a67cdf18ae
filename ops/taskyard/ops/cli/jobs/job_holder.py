"""A live job's worker, lease and heartbeat, and when the job's message comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from taskyard.broker import is_amqp
from taskyard.broker.connection import check_broker_url
from taskyard.clock import from_us, us_of
from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.reconcile.find_messages import find_held
from taskyard.reconcile.message_holders import Return, look_for_holders
from taskyard.reconcile.message_locations import survey
from taskyard.reconcile.record_fields import read_records
from taskyard.records import Fleet, Record, Records, lives
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["Hands", "look_at_hands"]

_HELD = frozenset({State.ACCEPTED, State.RUNNING, State.RETRYING})


@dataclass(frozen=True, slots=True)
class Hands:
    """Which worker holds a job.

    `lease_until` and `worker` belong to a running job; `worker_lives` is whether the worker's
    heartbeat was seen. `back` is set if a dead worker holds the message. `held` says whether any
    worker holds the message; it is None if this cannot be seen (RabbitMQ, or the broker does not
    answer).
    """

    lease_until: datetime | None = None
    expired: bool = False
    worker: str = ""
    worker_lives: bool | None = None
    held: bool | None = None
    back: Return | None = None

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        back = self.back
        at = None if back is None or back.at_us is None else from_us(back.at_us)
        return {
            "lease_until": self.lease_until,
            "lease_expired": self.expired,
            "worker": self.worker or None,
            "worker_lives": self.worker_lives,
            "message_held": self.held,
            "held_by_dead": None if back is None else back.holder,
            "back_at": at,
            "back_how": None if back is None else back.how,
        }


def look_at_hands(settings: Settings, records: Records, record: Record) -> Hands | None:
    """Return which worker holds a job that has not ended.

    Returns None for an ended job, and if the records do not answer.
    """
    if record.state not in _HELD:
        return None
    try:
        now_us, members = Fleet(records.client, settings.namespace).read()
        held, back = _message(settings, records, record)
    except RedisError:
        return None
    if record.state is not State.RUNNING:
        return Hands(held=held, back=back)
    worker, until_us = record.fields.get("worker", ""), record.number("lease_until")
    alive = lives(members, worker, record.number("started"), now_us)
    return Hands(from_us(until_us), until_us < now_us, worker, alive, held, back)


def _message(
    settings: Settings, records: Records, record: Record
) -> tuple[bool | None, Return | None]:
    """Return whether workers hold the job's message, and when dead workers' message comes back."""
    try:
        if is_amqp(settings):
            return None, None
        url = check_broker_url(settings)
        with connect(url, retries=0, variable=BROKER) as broker, reachable(url, variable=BROKER):
            return _held(settings, records, broker, record)
    except TaskyardError:
        return None, None


def _held(
    settings: Settings, records: Records, broker: Redis, record: Record
) -> tuple[bool, Return | None]:
    where = survey(settings, records, broker, [record.queue])
    messages = find_held(broker, where, record.job_id)
    (seen,) = read_records(records.client, records.keys, [record.job_id])
    holding = messages.holding(seen)
    if not holding:
        return False, None
    holders = look_for_holders(settings, records, broker, where)
    returns = []
    for held in holding:
        taken_s: Any = broker.zscore(held.index, held.tag)
        back = holders.judge(held, seen, us_of(float(taken_s or 0)))
        if back is None:
            return True, None
        returns.append(back)
    return True, min(returns, key=lambda one: one.at_us or float("inf"))
