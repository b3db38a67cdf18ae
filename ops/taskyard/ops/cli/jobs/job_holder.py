"""A live job's worker, lease and heartbeat, and when the job's message comes back."""

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
from taskyard.jobs.states import State
from taskyard.reconcile.find_messages import find_held, find_waiting
from taskyard.reconcile.message_holders import Return, look_for_holders
from taskyard.reconcile.message_locations import MessageLocations, survey
from taskyard.reconcile.record_fields import Seen, read_records
from taskyard.reconcile.report import Budget
from taskyard.records import Fleet, Record, Records, lives
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["Hands", "look_at_hands"]

_HELD = frozenset({State.ACCEPTED, State.RUNNING, State.RETRYING})
# A person waits for the answer; a longer backlog than can be read meanwhile is unknown.
_SEARCH_S: Final = 2.0


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
    waits_in: str | None = None

    @property
    def orphaned(self) -> bool:
        """Whether the worker that runs the job is dead."""
        return self.worker_lives is False

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
            "message_waits_in": self.waits_in,
        }


def look_at_hands(settings: Settings, records: Records, record: Record) -> Hands | None:
    """Return which worker holds a job that has not ended.

    Returns None for an ended job, and if the records do not answer.
    """
    if record.state not in _HELD:
        return None
    try:
        now_us, members = Fleet(records.client, settings.namespace).read()
        if record.state is not State.RUNNING:
            held, back, _ = _message(settings, records, record, orphaned=False)
            return Hands(held=held, back=back)
        worker, until_us = record.fields.get("worker", ""), record.number("lease_until")
        alive = lives(members, worker, record.number("started"), now_us)
        held, back, waits_in = _message(settings, records, record, orphaned=not alive)
    except RedisError:
        return None
    return Hands(from_us(until_us), until_us < now_us, worker, alive, held, back, waits_in)


_Found = tuple[bool | None, Return | None, str | None]


def _message(settings: Settings, records: Records, record: Record, *, orphaned: bool) -> _Found:
    """Return whether workers hold the job's message, when it comes back, and where it waits.

    When it comes back is known of a dead worker's message. Where it waits is searched only if the
    job's worker is dead (`orphaned`).
    """
    try:
        if is_amqp(settings):
            return None, None, None
        url = check_broker_url(settings)
        with connect(url, retries=0, variable=BROKER) as broker, reachable(url, variable=BROKER):
            return _find(settings, records, broker, record, orphaned=orphaned)
    except TaskyardError:
        return None, None, None


def _find(
    settings: Settings, records: Records, broker: Redis, record: Record, *, orphaned: bool
) -> _Found:
    where = survey(settings, records, broker, [record.queue])
    (seen,) = read_records(records.client, records.keys, [record.job_id])
    holding = find_held(broker, where, record.job_id).holding(seen)
    if not holding:
        return False, None, _waiting(broker, where, seen) if orphaned else None
    holders = look_for_holders(settings, records, broker, where)
    judge = holders.look if orphaned else holders.judge
    returns = []
    for held in holding:
        taken_s: Any = broker.zscore(held.index, held.tag)
        back = judge(held, seen, us_of(float(taken_s or 0)))
        if back is None:
            return True, None, None
        returns.append(back)
    return True, min(returns, key=lambda one: one.at_us or float("inf")), None


def _waiting(broker: Redis, where: MessageLocations, seen: Seen) -> str:
    key = find_waiting(broker, where, seen, Budget(SYSTEM_CLOCK, _SEARCH_S))
    if key is None:
        return "unknown"
    if not key:
        return ""
    return "delay store" if key == where.delayed else "queue"
