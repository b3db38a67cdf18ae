"""The end of a message that reaches no task: its death in the record, then its letter."""

from __future__ import annotations

from typing import Any, assert_never

from taskyard.engine.duties import defer, duty_of
from taskyard.engine.lost_continuations import dead_letter_following
from taskyard.engine.message import (
    is_identified,
    job_id_of,
    raw_message,
    stamp_of,
    task_of,
    was_delivered_before,
)
from taskyard.engine.own_letters import reused_duty, unidentified_letter
from taskyard.engine.yard import Yard
from taskyard.jobs.outcomes import Failed
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Ended, Held, Reused, Stale
from taskyard.runner.cause import death_of
from taskyard.wire.letters import Letter
from taskyard.wire.logs import logger

__all__ = ["condemn"]

log = logger(__name__)


def condemn(yard: Yard, message: Any, outcome: Failed) -> None:
    """Record the death and publish what follows; raises one of `NOT_DISCHARGED`.

    After that the message may be acknowledged.
    """
    if not is_identified(message):
        yard.letters.post(_unidentified(yard, message, outcome))
        return
    job_id, stamp = job_id_of(message), stamp_of(message)
    answer = yard.records.condemn(
        job_id,
        stamp,
        job_type=task_of(message),
        queue=yard.source(message),
        priority=None,
        **death_of(outcome),
    )
    match answer:
        case Decided():
            policy = None if stamp is None else stamp.policy
            duty_of(yard, job_id, message, answer, policy).discharge()
        case Held(remaining_us):
            # The job runs under another message; this one has to wait for its end.
            defer(yard, job_id, message, stamp, remaining_us).discharge()
        case Ended(State.COMPLETED) if outcome.category is Category.POISON:
            # It came back so often for what follows it, which could not be published.
            if not dead_letter_following(yard, job_id, message, outcome.failure.message):
                _log_without_letter(job_id, State.COMPLETED, outcome)
        case Reused():
            named = {"given": job_id, "name": task_of(message)}
            reused_duty(yard, message, answer, outcome, **named).discharge()
        case Stale(state) | Ended(state):
            _log_without_letter(job_id, state, outcome)
        case _:
            assert_never(answer)


def _log_without_letter(job_id: str, state: State, outcome: Failed) -> None:
    """A duplicate, or a message that comes back although its job is over."""
    log.error(
        "job %s is %s, so its message ends without a letter: %s",
        job_id,
        state,
        outcome.failure.message,
        extra={"action": "ended_without_letter", "job_id": job_id},
    )


def _unidentified(yard: Yard, message: Any, outcome: Failed) -> Letter:
    return unidentified_letter(
        raw_message(message),
        outcome,
        job_type=task_of(message),
        queue=yard.source(message),
        now_us=yard.records.now_us(),
        delivered_before=was_delivered_before(message),
    )
