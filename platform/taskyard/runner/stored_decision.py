"""Encode how an attempt ended, in the form that the job's record in Redis stores.

For a dead letter, the record keeps its cause of death until the mirror has stored the letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from taskyard.jobs.attempt_outcomes import Completed, Decision, Failed, Failure, Outcome, Retrying
from taskyard.jobs.retry_policy import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Forward, NotHeld, Record, Superseded
from taskyard.records.script_replies import Finished
from taskyard.runner.exception_facts import MESSAGE_LIMIT
from taskyard.wire.lossless_json import clean_text
from taskyard.wire.redaction import redact_text

__all__ = ["death_of", "decide_for", "decision_of", "encode_cause", "plain_failure"]


def encode_cause(outcome: Failed) -> bytes:
    """Return a cause of death as JSON: category, code, texts, fingerprint and evidence."""
    failure = outcome.failure
    facts = {
        "category": outcome.category,
        "code": failure.code,
        "error_class": failure.error_class,
        "message": failure.message,
        "traceback": failure.traceback,
        "fingerprint": failure.fingerprint,
        "escalate_to": outcome.escalate_to,
        "evidence": failure.details or {},
    }
    return json.dumps(facts, default=str).encode()


def plain_failure(
    category: Category,
    code: str,
    error_class: str,
    message: str,
    evidence: dict[str, object] | None = None,
) -> Failed:
    """Return a cause of death that no exception caused: expired, unknown or invalid task."""
    text = redact_text(clean_text(message))[:MESSAGE_LIMIT]
    return Failed(Failure(code, error_class, text, "", "", details=evidence), category)


def decide_for(
    finish: Callable[..., Finished | Superseded | Forward],
    record: Record,
    outcome: Retrying | Failed,
    *,
    job_id: str,
    holder: str,
) -> Decided | NotHeld | Forward:
    """Record the outcome of an attempt in place of its process, for example of a dead one.

    Returns `NotHeld` if this delivery holds no attempt, or no longer holds one.
    """
    if record.state is State.NONE:
        # The record has expired or was lost: `finish` would create one without type and queue.
        return NotHeld(record.state)
    answer = finish(
        job_id,
        epoch=record.epoch,
        generation=record.generation,
        seq=record.number("seq"),
        holder=holder,
        **decision_of(outcome),
    )
    if isinstance(answer, Forward):
        return answer
    if isinstance(answer, Superseded):
        return NotHeld(answer.state)
    decision = Decision.RETRYING if isinstance(outcome, Retrying) else Decision.DEAD_LETTERED
    return Decided(decision, answer.seq, answer.due_us, record.epoch, record.generation)


def decision_of(outcome: Outcome, stored: bytes = b"") -> dict[str, Any]:
    """Return the arguments of `AttemptScripts.finish` for the outcome of an attempt.

    `stored` is the encoded result of a success.
    """
    match outcome:
        case Completed():
            return {"decision": Decision.COMPLETED, "result": stored}
        case Retrying(failure, delay):
            return {
                "decision": Decision.RETRYING,
                "delay_s": delay.total_seconds(),
                "code": failure.code,
                "message": failure.summary,
            }
        case Failed():
            return {"decision": Decision.DEAD_LETTERED, **death_of(outcome)}


def death_of(outcome: Failed) -> dict[str, Any]:
    """Return a cause of death as arguments of `dead_letter` and `finish` of `AttemptScripts`."""
    return {
        "cause": encode_cause(outcome),
        "code": outcome.failure.code,
        "category": outcome.category,
        "message": outcome.failure.summary,
    }
