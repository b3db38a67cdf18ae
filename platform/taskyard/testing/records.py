"""The records of a yard in memory: every call answers as its Redis script does."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from taskyard.clock import to_us
from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import (
    Admission,
    Admitted,
    BeginAnswer,
    Decided,
    Ended,
    Held,
    Keys,
    NotHeld,
    Record,
    Records,
    Replayed,
    Requeue,
    Reused,
    Stale,
    Superseded,
    Witnessed,
)
from taskyard.records.answers import Finished
from taskyard.settings import Settings
from taskyard.testing.begin import Caller, begin, lease_end
from taskyard.testing.births import admit, replay, witness
from taskyard.testing.draft import Draft, Position
from taskyard.testing.ends import condemn, lose, release
from taskyard.testing.finish import finish
from taskyard.testing.shelf import Shelf
from taskyard.wire.headers import Stamp

__all__ = ["MemoryRecords"]

_US = 1_000_000


class MemoryRecords(Records):
    """`taskyard.records.Records` without a server; the arguments mean the same."""

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        # Without the base's `__init__`: it wants the client that this class does without.
        self.shelf, self.settings = shelf, settings
        self.keys = Keys(settings.namespace)

    @contextmanager
    def _draft(self, job_id: str) -> Iterator[Draft]:
        """One call at a time, as Redis runs one script at a time."""
        with self.shelf.lock:
            yield Draft(self.shelf, job_id)

    def admit_many(self, jobs: Sequence[Admission]) -> list[Admitted]:
        """The records of new jobs, or those their ids already have; nothing is published here."""
        return [self._admit(job) for job in jobs]

    def admit_ahead(self, jobs: Iterable[Admission]) -> Generator[list[Admitted]]:
        """One at a time: there is no server to keep busy."""
        for job in jobs:
            yield [self._admit(job)]

    def witness_many(self, jobs: Sequence[Witnessed], *, published: bool) -> int:
        """Records of jobs that their producer has published itself; how many are new."""
        return sum(self._witness(job, published) for job in jobs)

    def _witness(self, job: Witnessed, published: bool) -> bool:
        message = Position(None, 0, 0, job.job_type, job.queue, None)
        window_us = self.settings.dedupe_window_s * _US
        with self._draft(job.job_id) as draft:
            return witness(draft, message, published=published, window_us=window_us)

    def _admit(self, job: Admission) -> Admitted:
        message = Position(None, 0, 0, job.job_type, job.queue, job.priority)
        with self._draft(job.job_id) as draft:
            return admit(draft, message, int(job.unique_for_s * _US), job.call)

    def confirm(self, job_id: str, epoch: int) -> None:
        """Note that the first message of this life was published."""
        with self._draft(job_id) as draft:
            if draft.text("epoch") == str(epoch):
                if draft.text("published") == "0":
                    self.shelf.end_at(job_id, None)
                draft.patch(published=1)

    def begin(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        holder: str,
        worker: str,
        job_type: str,
        queue: str,
        priority: int | None,
        process: str = "",
    ) -> BeginAnswer:
        """Ask for the right to run one attempt."""
        message = _position(stamp, job_type, queue, priority)
        sent_us = 0 if stamp is None or stamp.sent_us is None else stamp.sent_us
        with self._draft(job_id) as draft:
            caller = Caller(holder, process, worker)
            return begin(draft, self.settings, message, sent_us=sent_us, caller=caller)

    def renew(self, job_id: str, token: int) -> tuple[bool, str]:
        """(whether the lease is kept, what an operator asks or the state that took it)."""
        with self._draft(job_id) as draft:
            if not _holds(draft, token):
                return False, draft.state.value
            draft.patch(lease_until=lease_end(draft, self.settings))
            return True, draft.text("cancel") or ""

    def progress(self, job_id: str, token: int, fraction: float, note: str) -> bool:
        """Write progress; False if this token no longer holds the job."""
        with self._draft(job_id) as draft:
            if not _holds(draft, token):
                return False
            draft.patch(progress=json.dumps({"fraction": fraction, "note": note}))
            return True

    def finish(self, job_id: str, decision: Decision, **facts: Any) -> Finished | Superseded:
        """Record the decision about the attempt that `token` (or the delivery `holder`) holds."""
        with self._draft(job_id) as draft:
            return finish(draft, self.settings, decision, **facts)

    def release(self, job_id: str, holder: str) -> Requeue | NotHeld | Decided:
        """End this delivery's attempt without a decision and without counting it."""
        with self._draft(job_id) as draft:
            return release(draft, holder)

    def lose(self, job_id: str, holder: str, evidence: str) -> Requeue | NotHeld | Decided:
        """End this delivery's attempt as its process died."""
        with self._draft(job_id) as draft:
            return lose(draft, holder, evidence, self.settings.death_limit)

    def condemn(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        job_type: str,
        queue: str,
        priority: int | None,
        cause: bytes,
        code: str,
        category: str,
        message: str,
    ) -> Decided | Held | Stale | Ended | Reused:
        """Let a message die that no attempt could decide about."""
        place = _position(stamp, job_type, queue, priority)
        with self._draft(job_id) as draft:
            return condemn(draft, place, cause=cause, code=code, category=category, text=message)

    def deliver(self, job_id: str) -> int:
        """Count one more delivery of a redelivered message and return the count."""
        with self._draft(job_id) as draft:
            if draft.state is not State.NONE:
                draft.patch(deliveries=draft.number("deliveries") + 1)
                return draft.number("deliveries")
            return self.shelf.deliver(job_id, self.settings.dedupe_window_s * _US)

    def replay(
        self,
        *,
        job_id: str,
        epoch: int,
        generation: int,
        request_id: str,
        job_type: str,
        queue: str,
        priority: int | None,
    ) -> Replayed:
        """Open the generation after `generation`; raises `Refused`."""
        letter = Position(epoch, generation, 0, job_type, queue, priority)
        with self._draft(job_id) as draft:
            return replay(draft, letter, epoch, request_id)

    def result(self, job_id: str) -> bytes | None:
        """The stored Celery result, None if there is none (any more)."""
        return self.shelf.result(job_id)

    def kept_result(self, job_id: str) -> bytes | None:
        """Return None: a yard has no results but the records' own."""
        del job_id
        return None

    def now_us(self) -> int:
        """The time of the clock that tests move."""
        return to_us(self.shelf.clock.now())

    def read(self, job_id: str) -> Record:
        """The record as it is; state `none` if there is none."""
        return Record(job_id, self.shelf.read(job_id))


def _position(stamp: Stamp | None, job_type: str, queue: str, priority: int | None) -> Position:
    if stamp is None:
        return Position(None, 0, 0, job_type, queue, priority)
    return Position(stamp.epoch, stamp.generation, stamp.seq, job_type, queue, priority)


def _holds(draft: Draft, token: int) -> bool:
    return draft.state is State.RUNNING and draft.text("token") == str(token)
