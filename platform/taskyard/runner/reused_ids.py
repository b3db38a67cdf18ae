"""Messages that use the id of a job of another type: each is another job, and gets its own letter.

Its letter, and the record behind it, have an id made of both: if the work is repeated after a
crash, record and letter are the same.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Final

from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.retry_policy import Category
from taskyard.jobs.states import State
from taskyard.records import Record, Reused
from taskyard.runner.stored_decision import plain_failure

__all__ = ["reuse_death", "reuse_in", "reused_id"]

_REUSED: Final = uuid.UUID("5f6b3a0e-9d43-5c8b-b7f0-27c1a4e0d3b9")


def reused_id(job_id: str, job_type: str, epoch: int) -> str:
    """Return the id of the job of a message that has the id of another job in its epoch `epoch`."""
    return str(uuid.uuid5(_REUSED, f"{job_id}\n{job_type}\n{epoch}"))


def reuse_death(given: str, name: str, reused: Reused, outcome: Failed | None) -> Failed:
    """Return the cause of death of a message of the task `name` whose `given` id is another job's.

    `outcome` is another cause of death, if it could not have run under any id.
    """
    evidence: dict[str, object] = {"id": given, "type_of_that_id": reused.job_type}
    if outcome is not None:
        details = {**(outcome.failure.details or {}), **evidence}
        return replace(outcome, failure=replace(outcome.failure, details=details))
    return plain_failure(
        Category.REJECTED,
        "id_reused",
        "IdReused",
        f"its id {given} is that of a job of type {reused.job_type!r} ({reused.state}), and an id "
        f"belongs to one job only; this message is a {name!r} and did not run. Give each job its "
        "own id; a replay runs this one under the id of its letter's job",
        evidence,
    )


def reuse_in(record: Record, name: str) -> Reused | None:
    """Return what a record answers to a message of the task `name` with its id and no stamp."""
    if record.state is State.NONE or record.job_type in ("", name):
        return None
    return Reused(record.job_type, record.state, record.epoch)
