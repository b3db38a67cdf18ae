"""One comparison: records, then the broker twice, then Postgres, within one time budget."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import redis
from sqlalchemy import Engine

from taskyard.broker import Publisher, is_amqp
from taskyard.broker.connection import check_broker_url, same_redis
from taskyard.clock import SYSTEM_CLOCK, Clock, from_us, us_of
from taskyard.deadletters import KeptLetters, LetterBox, count_waiting
from taskyard.gate import Gate
from taskyard.inspection.broker_keys_to_search import MessageLocations, survey
from taskyard.inspection.find_messages import Messages, count_messages, find_messages
from taskyard.inspection.message_after_worker_death import (
    MessageState,
    Place,
    begun_by_dead,
    describe,
    look_at_message,
)
from taskyard.inspection.next_queue import next_queues
from taskyard.inspection.record_fields import Seen, read_records, scan_records, server_now_us
from taskyard.inspection.search_budget import GRACE_S, Budget
from taskyard.inspection.unacked_message_owners import look_for_holders
from taskyard.jobs.states import State
from taskyard.reconcile import compare_ledger, compare_letters, compare_replays
from taskyard.reconcile.hash_zset_mismatches import find_half_entries
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import EXAMPLES, Continuing, Finding, Report
from taskyard.reconcile.return_dead_workers_messages import Abandoned
from taskyard.reconcile.stranded_jobs import Republisher, may_be_stranded, stranded_findings
from taskyard.records import Fleet, Member, Records
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["BUDGET_S", "ROWS", "Reconciler"]

BUDGET_S: Final = 30.0
# How many rows of Postgres one step reads, newest first; later runs report the rest.
ROWS: Final = 20_000
_RABBIT: Final = (
    "RabbitMQ's queues cannot be searched: the suspected jobs may wait there or be stranded"
)
_LETTERS_UNSEEN: Final = (
    "RabbitMQ holds dead letters for the mirror, or cannot be asked: suspected ones may be among "
    "them. Make sure that the mirror runs, then run this again"
)
_TOO_MANY: Final = "too many messages wait to search for single ones: run taskyard reconcile"


# RabbitMQ's queues cannot be searched, but the record of a running job names its worker and its
# lease. So such a job is certain and named, while RabbitMQ still has its message for another
# worker.
def has_expired(seen: Seen, now_us: int) -> bool:
    """Return whether the record says that the job runs, and its lease has expired."""
    return seen.state is State.RUNNING and seen.numbers["lease_until"] < now_us


def begun_by_dead_workers(
    settings: Settings, expired: Iterable[Seen], members: Sequence[Member], now_us: int
) -> Iterator[Finding]:
    """Yield a finding for each of the `expired` records whose worker's heartbeat stopped.

    Nothing is repaired: a second publication of the message would run the job twice.
    """
    for seen in begun_by_dead(expired, members, now_us):
        queue = _broker_queue(settings, seen.texts["queue"])
        readers = sum(one.alive(now_us) and queue in one.queues for one in members)
        detail = _detail(seen, queue, readers)
        yield Finding(Kind.BEGUN_BY_DEAD_WORKER, seen.job_id, None, detail)


def _broker_queue(settings: Settings, queue: str) -> str:
    return settings.broker_name(queue) if queue in settings.queues else queue


def _detail(seen: Seen, queue: str, readers: int) -> str:
    worker = seen.texts["worker"] or "without a name"
    lease = f"its lease expired at {from_us(seen.numbers['lease_until']):%Y-%m-%d %H:%M:%S} UTC"
    gone = f"{lease}, its worker {worker} is dead"
    if not readers:
        return f"{gone}; no worker consumes queue {queue}: start one"
    return f"{gone}; RabbitMQ gives its message to one of the {readers} that consume queue {queue}"


@dataclass(slots=True)
class _ScanResult:
    """The results of the scan of the records that later steps need."""

    suspects: list[Seen] = field(default_factory=list)
    running: list[Seen] = field(default_factory=list)
    unmirrored: list[Seen] = field(default_factory=list)
    messages: Messages = field(default_factory=Messages)


class Reconciler:
    """Compares the stores of one namespace; it is safe to run while everything else runs."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        records: Records,
        publisher: Publisher,
        clock: Clock = SYSTEM_CLOCK,
        grace_s: float = GRACE_S,
    ) -> None:
        self._settings, self._engine, self._records = settings, engine, records
        self._publisher, self._clock, self._grace_s = publisher, clock, grace_s
        self.gate = Gate(settings.namespace, records.client, clock)

    @cached_property
    def _broker(self) -> redis.Redis:
        if same_redis(self._settings):
            return self._records.client
        return connect(check_broker_url(self._settings), variable=BROKER)

    @cached_property
    def _box(self) -> LetterBox:
        return LetterBox(self._settings)

    def close(self) -> None:
        """Close the connections that this object opened."""
        if "_box" in self.__dict__:
            self._box.close()
        if "_broker" in self.__dict__ and self._broker is not self._records.client:
            self._broker.close()

    def run(
        self,
        *,
        repair: bool = False,
        restored: bool = False,
        budget_s: float = BUDGET_S,
        most_messages: int | None = None,
        most_examples: int = EXAMPLES,
        stop: threading.Event | None = None,
    ) -> Report:
        """Compare everything once; with `repair` mend what can be mended.

        `restored`: also settle intents of jobs without a record in Redis. If the broker has more
        than `most_messages`, none is read. `most_examples` of each kind are named. `stop` ends the
        run as a spent budget does.

        Raises `ServerUnreachable` or `ServerRefused` for broker and Postgres, and redis-py's own
        errors for the records: an unreachable server is not an inconsistency.
        """
        report = Report(repairing=repair, most_examples=most_examples)
        budget = Budget(self._clock, budget_s, stop)
        started_s = self._clock.monotonic_s()
        with self._engine.connect() as connection:
            report.gate = self.gate.why_closed(connection)
        scanned = self._scan(report, budget)
        if is_amqp(self._settings):
            self._judge_blindly(report, scanned)
        else:
            self._judge(report, scanned, budget, most_messages)
        self._compare_postgres(report, scanned, budget, restored=restored)
        report.complete = not budget.spent
        report.took_s = self._clock.monotonic_s() - started_s
        return report

    # -- Redis ---------------------------------------------------------------------------------

    def _scan(self, report: Report, budget: Budget) -> _ScanResult:
        """Scan all records: compare each with the ledger at once, keep the rest for later steps."""
        scanned, count = _ScanResult(), 0
        settled_us = server_now_us(self._records.client) - us_of(self._grace_s)
        oldest_us = compare_ledger.oldest_event_us(self._records)
        for batch in scan_records(self._records.client, self._records.keys, budget):
            count += len(batch)
            scanned.suspects += [seen for seen in batch if may_be_stranded(seen, settled_us)]
            scanned.running += [seen for seen in batch if seen.state is State.RUNNING]
            dead = [seen for seen in batch if _died_before(seen, settled_us)]
            scanned.unmirrored += compare_letters.not_mirrored(self._engine, dead)
            report.take(compare_ledger.behind(self._engine, batch, settled_us, oldest_us))
        report.looked_at["records"] = count
        return scanned

    def _judge(
        self, report: Report, scanned: _ScanResult, budget: Budget, most_messages: int | None
    ) -> None:
        """Compare the records with a Redis broker.

        A message that two searches do not find is lost if its record did not change.
        """
        queues = next_queues(self._records.client, self._records.keys, scanned.suspects)
        with reachable(check_broker_url(self._settings), variable=BROKER):
            where = survey(self._settings, self._records, self._broker, queues.values())
            if not self._find_messages(report, scanned, budget, where, most_messages):
                self._note_continuing(report, scanned, None)
                return
            self._check_holders(report, scanned, where)
        lost = [seen for seen in scanned.suspects if not scanned.messages.serves(seen)]
        unseen = {one.job_id: where.why_unseen(queues[one.job_id]) for one in lost}
        certain = [seen for seen in lost if unseen[seen.job_id] is None]
        report.take(stranded_findings(self._unmoved(certain), self._republisher))
        for seen in self._unmoved(lost):
            report.suspect(f"stranded_{seen.state}", unseen[seen.job_id])
        gone = [
            seen
            for seen in self._unmoved(scanned.unmirrored)
            if compare_letters.letter_of(seen) not in scanned.messages.letters
            and not scanned.messages.serves(seen)
        ]
        self._take_missing(report, gone)
        with reachable(check_broker_url(self._settings), variable=BROKER):
            self._note_continuing(report, scanned, where)

    def _note_continuing(
        self, report: Report, scanned: _ScanResult, where: MessageLocations | None
    ) -> None:
        """Note the other running jobs of dead workers: each says why it needs no repair.

        `where` is None if the messages at a Redis broker were not read.
        """
        now_us, members = Fleet(self._records.client, self._settings.namespace).read()
        begun = begun_by_dead(self._unmoved(scanned.running), members, now_us)
        left = [seen for seen in begun if not report.disagrees(seen.job_id)]
        for seen, message in self._messages_of(left, scanned, where):
            said = describe(seen, message, now_us)
            report.note_continuing(Continuing(seen.job_id, seen.texts["worker"], said))

    def _messages_of(
        self, left: Sequence[Seen], scanned: _ScanResult, where: MessageLocations | None
    ) -> Iterator[tuple[Seen, MessageState]]:
        if where is None or not left:
            unread = MessageState(Place.UNKNOWN, why="not all messages were read")
            state = MessageState(Place.RABBITMQ) if is_amqp(self._settings) else unread
            yield from ((seen, state) for seen in left)
            return
        holders = look_for_holders(self._settings, self._records, self._broker, where)
        for seen in left:
            yield seen, look_at_message(seen, scanned.messages, self._broker, where, holders)

    def _check_holders(self, report: Report, scanned: _ScanResult, where: MessageLocations) -> None:
        """Find messages that dead workers hold.

        There is no wait between two searches, since a sweep may return the messages at any moment.
        """
        undelivered = compare_letters.not_mirrored(self._engine, scanned.unmirrored)
        Abandoned(
            self._settings,
            self._records,
            self._broker,
            where,
            scanned.messages,
            look_for_holders(self._settings, self._records, self._broker, where),
            frozenset(seen.job_id for seen in undelivered),
        ).add_findings(report, self._grace_s)

    def _find_messages(
        self,
        report: Report,
        scanned: _ScanResult,
        budget: Budget,
        where: MessageLocations,
        most_messages: int | None,
    ) -> bool:
        """Fill `scanned.messages`; return False if not all of them could be read."""
        report.take(find_half_entries(self._broker, self._settings, budget))
        report.looked_at["messages"] = count_messages(self._broker, where)
        if most_messages is not None and report.looked_at["messages"] > most_messages:
            report.unseen.append(_TOO_MANY)
            return False
        for _ in range(2):
            found = find_messages(self._broker, where, budget)
            scanned.messages.merge(found)
        if budget.spent:
            report.unseen.append("the time budget ended before all messages were read")
            return False
        return True

    def _judge_blindly(self, report: Report, scanned: _ScanResult) -> None:
        """Compare the records with RabbitMQ, whose queues cannot be searched.

        Only an unconfirmed publication and a worker's death are certain.
        """
        left = self._begun_by_dead_workers(scanned)
        report.take(left)
        named = {finding.subject for finding in left}
        unsent = [seen for seen in scanned.suspects if _never_confirmed(seen)]
        report.take(stranded_findings(self._unmoved(unsent), self._republisher))
        self._judge_letters(report, self._unmoved(scanned.unmirrored))
        for seen in scanned.suspects:
            if not _never_confirmed(seen) and seen.job_id not in named:
                report.suspect(f"stranded_{seen.state}", _RABBIT)
        self._note_continuing(report, scanned, None)

    def _begun_by_dead_workers(self, scanned: _ScanResult) -> list[Finding]:
        """Find jobs with an expired lease and a stopped heartbeat of their worker: a proof."""
        now_us, members = Fleet(self._records.client, self._settings.namespace).read()
        expired = [seen for seen in self._unmoved(scanned.running) if has_expired(seen, now_us)]
        return list(begun_by_dead_workers(self._settings, expired, members, now_us))

    def _judge_letters(self, report: Report, unmirrored: list[Seen]) -> None:
        """Judge dead letters that Postgres lacks.

        While dead letters wait for the mirror, the missing ones are only suspected.
        """
        if not unmirrored:
            return
        waiting = count_waiting(self._settings)
        if waiting == 0:
            self._take_missing(report, unmirrored)
            return
        for _ in compare_letters.not_mirrored(self._engine, unmirrored):
            report.suspect(Kind.LETTER_MISSING.value, _LETTERS_UNSEEN)

    @property
    def _republisher(self) -> Republisher:
        return Republisher(self._engine, self._records, self._publisher)

    def _take_missing(self, report: Report, gone: list[Seen]) -> None:
        still = compare_letters.not_mirrored(self._engine, gone)
        kept = KeptLetters(self._records.client, self._settings)
        report.take(compare_letters.missing_letters(still, kept, self._box))

    def _unmoved(self, seen: Iterable[Seen]) -> list[Seen]:
        """Return the records that have not changed since the scan."""
        before = list(seen)
        if not before:
            return []
        ids = [one.job_id for one in before]
        after = read_records(self._records.client, self._records.keys, ids)
        return [old for old, new in zip(before, after, strict=True) if old.version == new.version]

    # -- Postgres ------------------------------------------------------------------------------

    def _compare_postgres(
        self, report: Report, scanned: _ScanResult, budget: Budget, *, restored: bool
    ) -> None:
        engine, records = self._engine, self._records
        # First the intents: marking a letter as replayed must not hide an open intent.
        report.take(
            compare_replays.open_replays(engine, records, scanned.messages, ROWS, restored=restored)
        )
        report.take(compare_replays.lost_replays(engine, records, ROWS))
        report.take(compare_letters.waiting_letters(engine, records, budget, ROWS))
        report.take(compare_ledger.forgotten(engine, records, budget, ROWS, self._grace_s))


def _died_before(seen: Seen, moment_us: int) -> bool:
    return seen.state is State.DEAD_LETTERED and seen.numbers["decided"] < moment_us


def _never_confirmed(seen: Seen) -> bool:
    return seen.state is State.ACCEPTED and seen.texts["published"] != "1" and seen.generation == 0
