"""The batches of a purge: look, cancel in the records, report to Celery, and only then remove."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import Engine, select

from taskyard import ledger
from taskyard.broker import QueueMessages, WaitingMessage
from taskyard.clock import from_us
from taskyard.control.operator_verb import VerbCall
from taskyard.control.purge_batch import Cancelled, cancel_batch
from taskyard.control.purge_outcome import Drop, Keep, PurgeCounts
from taskyard.control.purge_rules import Cancel, Treatment, job_id_in, treat
from taskyard.database.tables import LETTERS
from taskyard.jobs.states import State
from taskyard.records import Record, Records, VerbTarget
from taskyard.wire import letter_id
from taskyard.wire.redacted_logs import logger

__all__ = ["BATCH", "PurgeRun", "ReportsRevoked"]

log = logger(__name__)

BATCH: Final = 200
"""Messages that are cancelled and removed together; a batch takes some hundredths of a second."""

ReportsRevoked = Callable[[WaitingMessage, str], None]
"""Reports to Celery that the job of a message is revoked, as the worker that takes it would."""

_REVOKED: Final = frozenset({State.CANCELLED, State.ABORTED})
_NOT_BEGUN: Final = frozenset({State.ACCEPTED, State.RETRYING})


@dataclass(slots=True)
class _Case:
    """A message with what is known of its job, and what becomes of it."""

    message: WaitingMessage
    job_id: str | None
    record: Record | None
    treatment: Treatment
    cancelled: Cancelled | None = None

    @property
    def gone_epoch(self) -> int | None:
        """The life of a job whose record waits for this message; None if it does not."""
        if self.cancelled is not None:
            return self.cancelled.epoch
        if self.record is None or "kept" not in self.record.fields:
            return None
        return self.record.epoch

    @property
    def revoked(self) -> bool:
        """Whether Celery must hear that the job is revoked."""
        if self.cancelled is not None:
            return self.cancelled.epoch is not None
        if self.record is None or self.treatment is not Drop.ENDED:
            return False
        return self.record.state in _REVOKED


class PurgeRun:
    """One purge of one queue; `counts` say what is done so far."""

    def __init__(
        self,
        engine: Engine,
        records: Records,
        messages: QueueMessages,
        call: VerbCall,
        queue: str,
        *,
        report: ReportsRevoked | None,
        progress: Callable[[PurgeCounts], None] | None,
    ) -> None:
        self._engine, self._records, self._messages = engine, records, messages
        self._call, self._queue = call, queue
        self._report, self._progress = report, progress
        self._began_us = records.now_us()
        self.counts = PurgeCounts()

    def purge_waiting(self, most: int) -> None:
        """Purge at most `most` messages of the queue, those served next first.

        Raises `Refused`, and the errors of the broker, of Redis and of Postgres: then the batch at
        work is in the queue, or partly.
        """
        while self.counts.looked_at < most:
            limit = min(BATCH, most - self.counts.looked_at)
            batch = self._messages.next_messages(limit)
            if not batch:
                return
            self._purge(batch)

    def purge_delayed(self) -> None:
        """Purge the messages that wait for their time; raises as `purge_waiting`."""
        if not self._messages.has_delayed:
            self._cancel_delayed()
            return
        while (found := self._messages.next_delayed()) is not None:
            for start in range(0, len(found), BATCH):
                self._purge(found[start : start + BATCH])

    def _purge(self, batch: Sequence[WaitingMessage]) -> None:
        cases = self._with_letters(list(self._cases(batch)))
        self._cancel(cases)
        stay = [case for case in cases if isinstance(case.treatment, Keep)]
        gone = [case for case in cases if not isinstance(case.treatment, Keep)]
        self._messages.keep([case.message for case in stay])
        if self._report is not None:
            for case in gone:
                if case.revoked and case.job_id is not None:
                    self._report(case.message, case.job_id)
        removed = self._messages.remove([case.message for case in gone])
        lives = [
            (case.job_id, epoch)
            for case, was_there in zip(gone, removed, strict=True)
            if was_there and case.job_id and (epoch := case.gone_epoch) is not None
        ]
        self._records.note_gone_many(lives)
        self._count(cases, gone, removed)

    def _cases(self, batch: Sequence[WaitingMessage]) -> Iterator[_Case]:
        ids = [job_id_in(message) for message in batch]
        known = list(dict.fromkeys(job_id for job_id in ids if job_id is not None))
        found = dict(zip(known, self._records.read_many(known), strict=True))
        for message, job_id in zip(batch, ids, strict=True):
            record = None if job_id is None else found[job_id]
            if isinstance(record, RedisError):
                self._log_unreadable(job_id, record)
                yield _Case(message, job_id, None, Keep.UNREADABLE)
            elif record is None:
                yield _Case(message, None, None, Drop.NO_JOB)
            elif self._is_outside(record):
                yield _Case(message, job_id, record, Keep.OUTSIDE)
            else:
                treatment = treat(message, record, self._queue, self._began_us)
                yield _Case(message, job_id, record, treatment)

    def _is_outside(self, record: Record) -> bool:
        """Return whether the job is in another queue, where this operator may not act."""
        bound = self._call.identity.queues
        return bound is not None and record.queue not in {"", self._queue, *bound}

    def _log_unreadable(self, job_id: str | None, error: Exception) -> None:
        log.error(
            "the message of job %s stays in queue %s, because its record cannot be used: %s",
            job_id,
            self._queue,
            error,
            extra={"action": "purge_kept", "job_id": job_id, "queue": self._queue},
        )

    def _with_letters(self, cases: list[_Case]) -> list[_Case]:
        """Drop the messages of dead letters that Postgres has."""
        dead = {
            uuid.UUID(
                letter_id(case.record.job_id, case.record.epoch, case.record.generation)
            ): case
            for case in cases
            if case.treatment is Keep.LETTER and case.record is not None
        }
        if dead:
            with self._engine.connect() as connection:
                stored = connection.scalars(select(LETTERS.c.id).where(LETTERS.c.id.in_(dead)))
                known = {dead[each].job_id for each in stored}
            for case in cases:
                if case.treatment is Keep.LETTER and case.job_id in known:
                    case.treatment = Drop.ENDED
        return cases

    def _cancel(self, cases: Sequence[_Case]) -> None:
        wanted = {
            case.treatment.target: _seen(case.record, self._queue)
            for case in cases
            if isinstance(case.treatment, Cancel)
        }
        answers = {
            each.target: each
            for each in cancel_batch(self._engine, self._records, self._call, list(wanted.items()))
        }
        for case in cases:
            if not isinstance(case.treatment, Cancel):
                continue
            answer = answers[case.treatment.target]
            if answer.error is not None:
                self._log_unreadable(case.job_id, answer.error)
                case.treatment = Keep.UNREADABLE
            elif answer.epoch is None and not answer.asked:
                case.treatment = Keep.CHANGED
            else:
                case.cancelled = answer
        self._count_answers(answers.values())

    def _count_answers(self, answers: Any) -> None:
        for answer in answers:
            self.counts.cancelled += answer.epoch is not None and not answer.before
            self.counts.asked += answer.asked
            self.counts.left += answer.epoch is not None and answer.left

    def _count(
        self, cases: Sequence[_Case], gone: Sequence[_Case], removed: Sequence[bool]
    ) -> None:
        counts = self.counts
        counts.looked_at += len(cases)
        counts.kept.update(case.treatment for case in cases if isinstance(case.treatment, Keep))
        for case, was_there in zip(gone, removed, strict=True):
            counts.removed += was_there
            counts.taken += not was_there
            if was_there and isinstance(case.treatment, Drop):
                counts.dropped[case.treatment] += 1
        if self._progress is not None:
            self._progress(counts)

    # -- what waits in RabbitMQ's delay exchanges ----------------------------------------------

    def _cancel_delayed(self) -> None:
        """Cancel the jobs of the queue that the ledger has and that have not begun.

        Their messages cannot be found; the worker that takes one skips it.
        """
        after = ""
        while True:
            with self._engine.connect() as connection:
                ids = ledger.waiting_in(
                    connection,
                    self._queue,
                    until=from_us(self._began_us),
                    after=after,
                    limit=BATCH,
                )
            if not ids:
                return
            after = ids[-1]
            records = self._records.read_many(ids)
            targets = [
                (_target(record, self._queue), _seen(record, self._queue))
                for record in records
                if isinstance(record, Record) and self._is_delayed(record)
            ]
            answers = cancel_batch(self._engine, self._records, self._call, targets)
            self._count_answers(answers)
            self.counts.not_removed += sum(answer.epoch is not None for answer in answers)
            if self._progress is not None:
                self._progress(self.counts)

    def _is_delayed(self, record: Record) -> bool:
        return (
            record.state in _NOT_BEGUN
            and record.queue == self._queue
            and record.number("admitted") <= self._began_us
        )


def _target(record: Record, queue: str) -> VerbTarget:
    place = record.epoch, record.generation
    return VerbTarget(record.job_id, *place, None, record.job_type, queue)


def _seen(record: Record | None, queue: str) -> dict[str, object]:
    if record is None or record.state is State.NONE:
        return {"state": State.NONE.value, "queue": queue}
    return {
        "state": record.state.value,
        "epoch": record.epoch,
        "generation": record.generation,
        "version": record.number("version"),
        "queue": record.queue or queue,
    }
