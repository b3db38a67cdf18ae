"""Letters for tests: whole ones of jobs that never were, and of jobs that really died."""

from __future__ import annotations

import json
import uuid
from typing import Any

from taskyard.deadletters import build_letter
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.mirror import Delivery
from taskyard.records import Records, Run
from taskyard.wire import Letter, RawMessage, Stamp, letter_id

__all__ = ["EMBED", "died", "make_delivery", "make_letter", "make_message"]

EMBED = {"callbacks": [{"task": "next"}], "errbacks": None, "chain": None, "chord": None}
DIED_US = 1_760_000_000_000_000  # in October 2025


def make_message(job_id: str, **changes: Any) -> RawMessage:
    body = json.dumps([[{"password": "hunter2", "n": 1}], {}, EMBED]).encode()
    headers = {"id": job_id, "task": "plan_generation", "expires": "2020-01-01T00:00:00+00:00"}
    properties = {"correlation_id": job_id, "delivery_mode": 2}
    fields = {"body": body, "headers": headers, "properties": properties}
    fields |= {"content_type": "application/json", "content_encoding": "utf-8"}
    return RawMessage.model_validate(fields | changes)


def make_letter(job_id: str | None = None, **changes: Any) -> Letter:
    """A letter with everything filled in; `changes` are fields of `Letter`."""
    job = str(uuid.uuid4()) if job_id is None else job_id
    epoch, generation = changes.pop("epoch", DIED_US - 5), changes.pop("generation", 0)
    fields: dict[str, Any] = {
        "letter_id": letter_id(job, epoch, generation),
        "job_id": job,
        "epoch": epoch,
        "generation": generation,
        "version": 3,
        "job_type": "plan_generation",
        "queue": "plan",
        "priority": 3,
        "message": make_message(job),
        "args": [{"password": "hunter2", "n": 1}],
        "kwargs": {},
        "category": "retry_exhausted",
        "code": "timeout",
        "error_class": "TimeoutError",
        "error_message": "timed out, password=hunter2",
        "traceback": "Traceback (most recent call last): ...",
        "fingerprint": "f00d",
        "first_failure_us": DIED_US - 1,
        "last_failure_us": DIED_US,
        "replay_eligible": True,
    }
    return Letter.model_validate(fields | changes)


def make_delivery(letter: Letter | bytes, **changes: Any) -> Delivery:
    body = letter if isinstance(letter, bytes) else letter.encode()
    return Delivery(body=body, **changes)


def died(records: Records, job_id: str | None = None) -> Letter:
    """The letter of a job that was admitted, ran and really is dead-lettered in its record."""
    job = str(uuid.uuid4()) if job_id is None else job_id
    admitted = records.admit(
        job, job_type="plan_generation", queue="plan", priority=3, unique_for_s=0
    )
    stamp = Stamp(epoch=admitted.epoch, generation=admitted.generation, seq=admitted.seq)
    return die_again(records, job, stamp)


def die_again(records: Records, job: str, stamp: Stamp) -> Letter:
    """The letter of an attempt that `stamp` begins and that fails for good."""
    run = records.attempts.begin(
        job, stamp, holder="h", worker="w", job_type="plan_generation", queue="plan"
    )
    assert isinstance(run, Run)
    cause = {"category": "retry_exhausted", "code": "timeout", "message": "timed out"}
    records.attempts.finish(
        job,
        Decision.DEAD_LETTERED,
        epoch=run.epoch,
        generation=run.generation,
        seq=run.seq,
        token=run.token,
        cause=json.dumps(cause).encode(),
        code="timeout",
        category="retry_exhausted",
        message="timed out",
    )
    return build_letter(records.read(job), make_message(job))
