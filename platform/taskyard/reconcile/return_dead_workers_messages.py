"""Jobs whose message a dead worker holds: when the message comes back, or return it now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis

from taskyard.clock import from_us, us_of
from taskyard.inspection.broker_keys_to_search import MessageLocations
from taskyard.inspection.find_messages import Held, Messages
from taskyard.inspection.record_fields import BATCH, Seen, read_records
from taskyard.inspection.unacked_message_owners import Holders, Return
from taskyard.jobs.states import State
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding, Report
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.transport import give_back
from taskyard.transport.stored_messages import stored_parts
from taskyard.wire.redacted_logs import logger

__all__ = ["Abandoned"]

log = logger(__name__)

_UNKNOWN: Final = (
    "kombu's transport does not say who holds a message: a worker without Taskyard or a dead "
    "worker holds some messages; those of a dead worker come back after the visibility timeout"
)
_OPEN: Final = frozenset({State.NONE, State.ACCEPTED, State.RUNNING, State.RETRYING})


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Compares the messages that workers hold with the workers that live.

    `undelivered` are dead-lettered jobs whose dead letter was not found anywhere.
    """

    settings: Settings
    records: Records
    broker: redis.Redis
    where: MessageLocations
    messages: Messages
    holders: Holders
    undelivered: frozenset[str]

    def add_findings(self, report: Report, grace_s: float) -> None:
        """Add findings to the report.

        A message that no known worker has held for `grace_s` is only suspected.
        """
        job_ids = sorted(self.messages.held)
        for start in range(0, len(job_ids), BATCH):
            batch = job_ids[start : start + BATCH]
            seen = read_records(self.records.client, self.records.keys, batch)
            report.take(self._findings(report, seen, grace_s))

    def _findings(self, report: Report, batch: Iterable[Seen], grace_s: float) -> Iterator[Finding]:
        for seen in batch:
            dead = seen.state is State.DEAD_LETTERED and seen.job_id in self.undelivered
            if not (seen.state in _OPEN or dead) or self.messages.waits(seen):
                continue
            holding = self._still_held(seen)
            found = [self.holders.judge(held, seen, since_us) for held, since_us in holding]
            returns = [one for one in found if one is not None]
            if holding and len(returns) == len(holding):
                yield self._finding(seen, holding, returns)
            elif self._is_unknown(seen, holding, grace_s):
                report.suspect("held_unknown", _UNKNOWN)

    def _still_held(self, seen: Seen) -> list[tuple[Held, int]]:
        """Return the messages that are still held, with the time when they were taken.

        Apps of all namespaces that have no prefix share their keys. A job without a record
        belongs to this namespace only if one of its workers uses the keys.
        """
        found = []
        for held in self.messages.holding(seen):
            if seen.state is State.NONE and held.unacked not in self.where.used:
                continue
            taken_s: Any = self.broker.zscore(held.index, held.tag)
            if taken_s is not None:
                found.append((held, us_of(float(taken_s))))
        return found

    def _is_unknown(self, seen: Seen, holding: list[tuple[Held, int]], grace_s: float) -> bool:
        if seen.state not in (State.ACCEPTED, State.RETRYING) or not holding:
            return False
        oldest_us = self.holders.owners_now_us - us_of(grace_s)
        return all(
            self.holders.is_unknown(held, seen) and since_us < oldest_us
            for held, since_us in holding
        )

    def _finding(
        self, seen: Seen, holding: list[tuple[Held, int]], returns: list[Return]
    ) -> Finding:
        first = min(returns, key=lambda one: one.at_us or float("inf"))
        since_us = min(since_us for _, since_us in holding)
        mend = None
        if all(one.sure for one in returns):
            mend = self._giving_back(seen, [held for held, _ in holding])
        return Finding(Kind.HELD_BY_DEAD_WORKER, seen.job_id, mend, _detail(seen, since_us, first))

    def _giving_back(self, seen: Seen, holding: list[Held]) -> Callable[[], bool]:
        return lambda: sum(self._give_back(seen, held) for held in holding) > 0

    def _give_back(self, seen: Seen, held: Held) -> bool:
        stored: Any = self.broker.hget(held.unacked, held.tag)
        if stored is None:
            return False
        message, exchange, routing_key = stored_parts(stored)
        queue = routing_key if not exchange else self._queue_of(seen)
        layout = self.where.layout(held.unacked, queue)
        if layout is None or not queue or isinstance(message, bytes):
            return False
        properties = message.get("properties")
        priority = properties.get("priority") if isinstance(properties, dict) else None
        step = layout.step(priority if isinstance(priority, int) else 0)
        keys = held.unacked, held.index
        back = give_back(self.broker, *keys, held.tag, stored, layout.key(queue, step))
        if back:
            log.warning(
                "job %s: its message, which a dead worker held, was returned to queue %s",
                seen.job_id,
                queue,
                extra={"action": "reconcile_given_back", "job_id": seen.job_id},
            )
        return back

    def _queue_of(self, seen: Seen) -> str:
        queue = seen.texts["queue"]
        known = queue in self.settings.queues
        return self.settings.broker_name(queue) if known else queue


def _detail(seen: Seen, since_us: int, back: Return) -> str:
    running = seen.state is State.RUNNING
    lease = f"its lease expired at {_moment(seen.numbers['lease_until'])}, " if running else ""
    held = f"{back.holder}, which is dead, has held it since {_moment(since_us)}"
    if back.at_us is None:
        return f"{lease}{held}; {back.how}"
    return f"{lease}{held}; it comes back at about {_moment(back.at_us)}: {back.how}"


def _moment(us: int) -> str:
    return f"{from_us(us):%Y-%m-%d %H:%M:%S} UTC"
