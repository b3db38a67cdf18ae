"""Check workers: those whose heartbeat stopped without a sign-off, and which jobs wait for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from redis import Redis

from taskyard.broker import is_amqp
from taskyard.broker.connection import check_broker_url
from taskyard.clock import SYSTEM_CLOCK, from_us, us_of
from taskyard.errors import TaskyardError
from taskyard.inspection.broker_keys_to_search import survey
from taskyard.inspection.find_messages import find_held
from taskyard.inspection.message_after_worker_death import begun_by_dead
from taskyard.inspection.record_fields import Seen, scan_records
from taskyard.inspection.search_budget import GRACE_S, Budget
from taskyard.inspection.unacked_message_owners import look_for_holders
from taskyard.jobs.states import State
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.time_text import age
from taskyard.reconcile.report import Report
from taskyard.reconcile.return_dead_workers_messages import Abandoned
from taskyard.records import FORGOTTEN_S, Fleet, Member, Records
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["look_at"]

# A person waits for the answer; what is not known by then is said to be unknown.
_SEARCH_S: Final = 2.0
_EXAMPLES: Final = 3


@dataclass(slots=True)
class _Left:
    """What dead workers left: the jobs that each name had begun, and messages that some hold.

    `held` are the details of jobs that did not begin. `unknown` is why not all was found;
    `partial` is whether that concerns the jobs that had begun.
    """

    begun: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    held: Mapping[str, str] = field(default_factory=dict)
    held_count: int = 0
    unknown: str | None = None
    partial: bool = False


def look_at(settings: Settings) -> Iterator[Finding]:
    """Warn about each name whose last worker is dead, and about messages that dead workers hold."""
    try:
        url = settings.need_redis_url()
        with connect(url, retries=0) as client, reachable(url):
            records, budget = Records(client, settings), Budget(SYSTEM_CLOCK, _SEARCH_S)
            running = _running(records, budget)
            now_us, members = Fleet(client, settings.namespace).read()
            left = _Left(partial=budget.spent)
            for seen in begun_by_dead(running, members, now_us):
                left.begun[seen.texts["worker"]].append(seen)
            if left.partial:
                left.unknown = f"there is too much to search in {_SEARCH_S:g} s"
            else:
                _add_held(left, settings, records, budget)
    except TaskyardError:
        return  # the finding about the records' Redis reports why it does not answer
    latest = _latest(members, now_us)
    for name in sorted(_dead(latest, left, now_us)):
        yield _finding(name, latest.get(name), left, now_us)
    if left.held_count:
        yield _held_finding(left)


def _running(records: Records, budget: Budget) -> list[Seen]:
    batches = scan_records(records.client, records.keys, budget)
    return [seen for seen in chain.from_iterable(batches) if seen.state is State.RUNNING]


def _add_held(left: _Left, settings: Settings, records: Records, budget: Budget) -> None:
    """Add the messages that dead workers hold; RabbitMQ returns such messages at once."""
    try:
        if is_amqp(settings):
            return
        url = check_broker_url(settings)
        with connect(url, retries=0, variable=BROKER) as broker, reachable(url, variable=BROKER):
            report = _held(settings, records, broker, budget)
    except TaskyardError:
        left.unknown = "the broker could not be asked"
        return
    begun = {seen.job_id for jobs in left.begun.values() for seen in jobs}
    held = [job for jobs in report.examples.values() for job in jobs if job not in begun]
    left.held = {job: report.details[job] for job in held}
    left.held_count = len(held)
    if budget.spent:
        left.unknown = f"there is too much to search in {_SEARCH_S:g} s"


def _held(settings: Settings, records: Records, broker: Redis, budget: Budget) -> Report:
    """Find what `taskyard reconcile` counts as `held_by_dead_worker`."""
    report = Report(most_examples=1000)
    where = survey(settings, records, broker, [])
    Abandoned(
        settings,
        records,
        broker,
        where,
        find_held(broker, where, budget),
        look_for_holders(settings, records, broker, where),
        frozenset(),
    ).add_findings(report, GRACE_S)
    return report


def _latest(members: Sequence[Member], now_us: int) -> dict[str, Member]:
    """Return the last worker of each name: it replaced the earlier ones."""
    ordered = sorted(members, key=lambda one: (one.alive(now_us), one.started_us))
    return {member.worker: member for member in ordered}


def _dead(latest: Mapping[str, Member], left: _Left, now_us: int) -> set[str]:
    """Return the names without a living worker that died lately or for which a job waits."""
    recent_us = now_us - us_of(FORGOTTEN_S)
    dead = {name for name, one in latest.items() if not one.alive(now_us)}
    return {name for name in dead if latest[name].seen_us >= recent_us} | {
        name for name in left.begun if name in dead or name not in latest
    }


def _finding(name: str, member: Member | None, left: _Left, now_us: int) -> Finding:
    jobs = [seen.job_id for seen in left.begun.get(name, ())]
    worker = f"worker {name}" if name else "a worker without a name"
    detail = f"{worker} is dead: {_silence(member, now_us)}. {_jobs(jobs, left)}"
    remedy = "Start it again."
    if jobs:
        detail = f"{detail}. {_what_it_held(member)}" if member is not None else detail
        remedy = f"{remedy} To see where it waits: taskyard jobs show {jobs[0]}"
    return Finding.warning("workers", detail, remedy)


def _silence(member: Member | None, now_us: int) -> str:
    if member is None:
        return f"no heartbeat of it came for {FORGOTTEN_S / 3600:g} h"
    silent = age(from_us(member.seen_us), from_us(now_us))
    queues = ", ".join(member.queues) or "no queue yet"
    return f"its last heartbeat came {silent} ago, it did not sign off, and it consumed {queues}"


def _jobs(jobs: Sequence[str], left: _Left) -> str:
    if jobs:
        more = ", ..." if len(jobs) > _EXAMPLES else ""
        named = ", ".join(jobs[:_EXAMPLES]) + more
        least = "at least " if left.partial else ""
        return f"{least}{_count(len(jobs), 'job')} that it had begun must begin again: {named}"
    if left.unknown is not None:
        return f"It is unknown whether jobs wait for it: {left.unknown}"
    return "No job that it had begun waits"


def _what_it_held(member: Member) -> str:
    if not member.unacked:
        return "RabbitMQ returned its messages at once"
    if member.own:
        return "Its messages come back within seconds if another worker of its app runs"
    sooner = ", or sooner, if a worker that protects them returns them" * member.returns
    return (
        f"Its messages come back after the visibility timeout, {member.visibility_timeout_s:g} s"
        f"{sooner}; with Taskyard's transport within seconds"
    )


def _held_finding(left: _Left) -> Finding:
    job, detail = next(iter(left.held.items()))
    return Finding.warning(
        "workers",
        f"dead workers hold {_count(left.held_count, 'message')}, e.g. of job {job}: {detail}",
        "To return them to their queues now: taskyard reconcile --repair",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
