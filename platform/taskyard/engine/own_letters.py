"""Letters of messages that no job's record can stand for: no message leaves less than one.

A message without an id has nothing by which its next delivery is known again, so each delivery gets
a letter of its own, and says so where it may be a repetition. A message that uses the id of a job
of another type is another job: its letter, and the record behind it, have an id made of both.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Final

from taskyard.deadletters import build_letter
from taskyard.engine.duties import Duty, post_letter
from taskyard.engine.yard import Yard
from taskyard.jobs.outcomes import Failed
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Record, Reused
from taskyard.runner.cause import death_of, encode_cause, plain_failure
from taskyard.wire.letters import REPEATED, Letter, RawMessage

__all__ = ["reuse_in", "reused_duty", "reused_id", "unidentified_letter"]

_REUSED: Final = uuid.UUID("5f6b3a0e-9d43-5c8b-b7f0-27c1a4e0d3b9")


def unidentified_letter(
    message: RawMessage,
    outcome: Failed,
    *,
    job_type: str,
    queue: str,
    now_us: int,
    delivered_before: bool,
) -> Letter:
    """The letter of a message without an id, which is given one; no record knows it."""
    if delivered_before:
        failure = outcome.failure
        failure = replace(
            failure,
            message=f"{failure.message}{REPEATED}",
            details={**(failure.details or {}), "possibly_repeated": True},
        )
        outcome = replace(outcome, failure=failure)
    fields = {
        "state": State.DEAD_LETTERED.value,
        "epoch": str(now_us),
        "version": "1",
        "type": job_type,
        "queue": queue,
        "decided": str(now_us),
        "cause": encode_cause(outcome).decode(),
    }
    return build_letter(Record(str(uuid.uuid4()), fields), message)


def reused_id(job_id: str, job_type: str, epoch: int) -> str:
    """The id of the job that a message is, which has the id of another job in its life `epoch`."""
    return str(uuid.uuid5(_REUSED, f"{job_id}\n{job_type}\n{epoch}"))


def reused_duty(
    yard: Yard,
    message: Any,
    reused: Reused,
    outcome: Failed | None = None,
    *,
    given: str,
    name: str,
) -> Duty:
    """The letter owed for a message of the task `name`, whose `given` id is another job's.

    `outcome` is what it died of besides, if it could not have run under any id. Repeated after a
    crash it is the same record and the same letter.
    """
    job_id = reused_id(given, name, reused.epoch)
    death = _reuse(given, name, reused) if outcome is None else _besides(outcome, given, reused)

    def discharge() -> None:
        yard.records.condemn(
            job_id,
            None,
            job_type=name,
            queue=yard.source(message),
            priority=None,
            **death_of(death),
        )
        post_letter(yard, job_id, message).discharge()

    return Duty("letter", discharge)


def _reuse(given: str, name: str, reused: Reused) -> Failed:
    return plain_failure(
        Category.REJECTED,
        "id_reused",
        "IdReused",
        f"its id {given} is that of a job of type {reused.job_type!r} ({reused.state}), and one id "
        f"stands for one job; this message is a {name!r} and did not run. Give each an id of its "
        "own; a replay runs this one under the id of its letter's job",
        _evidence(given, reused),
    )


def _besides(outcome: Failed, given: str, reused: Reused) -> Failed:
    details = {**(outcome.failure.details or {}), **_evidence(given, reused)}
    return replace(outcome, failure=replace(outcome.failure, details=details))


def _evidence(given: str, reused: Reused) -> dict[str, object]:
    return {"id": given, "type_of_that_id": reused.job_type}


def reuse_in(record: Record, name: str) -> Reused | None:
    """What a record says to a message of the task `name` that carries its id and no stamp."""
    if record.state is State.NONE or record.job_type in ("", name):
        return None
    return Reused(record.job_type, record.state, record.epoch)
