"""Handle a message that uses the id of another job, of another type.

Such a message is a job of its own, and becomes a dead letter of its own. The dead letter and its
record get an id that is made of both jobs. So a crash and a repetition lead to the same record and
the same dead letter.
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
    """Return the id for a message that uses the id of another job in epoch `epoch`."""
    return str(uuid.uuid5(_REUSED, f"{job_id}\n{job_type}\n{epoch}"))


def reuse_death(given: str, name: str, reused: Reused, outcome: Failed | None) -> Failed:
    """Return the cause of death of a message whose id belongs to a job of another type.

    `name` is the message's task and `given` its id. `outcome` is another cause of death, for a
    message that could not have run under any id.
    """
    evidence: dict[str, object] = {"id": given, "type_of_that_id": reused.job_type}
    if outcome is not None:
        details = {**(outcome.failure.details or {}), **evidence}
        return replace(outcome, failure=replace(outcome.failure, details=details))
    return plain_failure(
        Category.REJECTED,
        "id_reused",
        "IdReused",
        f"the id {given} of this message is that of a job of type {reused.job_type!r} "
        f"({reused.state}), and an id belongs to one job only; this message is a {name!r} and "
        "did not run. Give each job its own id. A replay of the dead letter runs this message "
        "under an id of its own",
        evidence,
    )


def reuse_in(record: Record, name: str) -> Reused | None:
    """Return the job whose id a message without a stamp reuses, as the record answers.

    `name` is the task of the message.
    """
    if record.state is State.NONE or record.job_type in ("", name):
        return None
    return Reused(record.job_type, record.state, record.epoch)
