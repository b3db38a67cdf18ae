"""At RabbitMQ: jobs that run nowhere, since the worker that began them is gone.

Its queues cannot be searched, but the record of a running job names its worker and its lease. So
such a job is certain and named, while RabbitMQ still has its message for another worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from taskyard.clock import from_us
from taskyard.jobs.states import State
from taskyard.reconcile.kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.reconcile.seen import Seen
from taskyard.records import Member, lives
from taskyard.settings import Settings

__all__ = ["begun_by_dead_workers", "has_expired"]


def has_expired(seen: Seen, now_us: int) -> bool:
    """Whether the record says that the job runs, and its lease is over."""
    return seen.state is State.RUNNING and seen.numbers["lease_until"] < now_us


def begun_by_dead_workers(
    settings: Settings, expired: Iterable[Seen], members: Sequence[Member], now_us: int
) -> Iterator[Finding]:
    """One finding for each of `expired` whose worker has fallen silent.

    Nothing is repaired: a message that is published again would be a second one.
    """
    for seen in expired:
        if lives(members, seen.texts["worker"], seen.numbers["started"], now_us):
            continue
        queue = _broker_queue(settings, seen.texts["queue"])
        readers = sum(one.alive(now_us) and queue in one.queues for one in members)
        detail = _detail(seen, queue, readers)
        yield Finding(Kind.BEGUN_BY_DEAD_WORKER, seen.job_id, None, detail)


def _broker_queue(settings: Settings, queue: str) -> str:
    return settings.broker_name(queue) if queue in settings.queues else queue


def _detail(seen: Seen, queue: str, readers: int) -> str:
    worker = seen.texts["worker"] or "without a name"
    lease = f"its lease expired at {from_us(seen.numbers['lease_until']):%Y-%m-%d %H:%M:%S} UTC"
    gone = f"{lease}, its worker {worker} is gone"
    if not readers:
        return f"{gone}; no worker reads queue {queue}: start one"
    return f"{gone}; RabbitMQ gives its message to one of the {readers} that read queue {queue}"
