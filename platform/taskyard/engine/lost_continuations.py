"""Dead-letter a continuation that cannot be built or published, once.

The continuation keeps its own id, or gets one that is derived from its job's id. So repeated tries
give one record and one dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from celery.app.task import Context
from kombu.utils.json import dumps

from taskyard.deadletters import build_letter
from taskyard.engine.continuations import (
    Continuation,
    continuation_id,
    continuations_of,
    fix_continuations,
    is_invalid,
)
from taskyard.engine.header_faults import is_text
from taskyard.engine.source_queue import QUEUE
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import PublishFailed
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.retry_policy import Category
from taskyard.jobs.states import State
from taskyard.records import Decided
from taskyard.runner.stored_decision import death_of, plain_failure
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import clean_text, pack
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import LONGEST_ID, usable_id

__all__ = ["dead_letter", "dead_letter_following", "dead_letter_unpublished"]

log = logger(__name__)

_ARGUMENTS: Final = frozenset({"args", "kwargs"})


def dead_letter(yard: WorkerContext, request: Any, one: Continuation, error: BaseException) -> None:
    """Record the death of a continuation and publish its dead letter.

    `request` is that of the job which the continuation follows. Raises one of `PUBLISH_ERRORS`
    if that is not possible now.
    """
    job_id = _id_of(yard, request, one)
    outcome = _outcome(request, one, error)
    answer = yard.records.attempts.dead_letter(
        job_id,
        None,
        job_type=_task_of(one),
        queue=_queue_of(yard, request, one),
        **death_of(outcome),
    )
    if not isinstance(answer, Decided):
        log.error(
            "job %s: its %s %d was not published (%s), and there is no dead letter of it, because "
            "a job with its id, %s, exists already. Compare them: taskyard jobs show %s",
            request.id,
            one.kind,
            one.index,
            outcome.failure.message,
            job_id,
            job_id,
            extra={"action": "continuation_known", "job_id": request.id},
        )
        return
    record = yard.records.read(job_id)
    if record.state is State.DEAD_LETTERED:
        yard.letters_here.post(build_letter(record, _message(job_id, request, one)))


def dead_letter_unpublished(yard: WorkerContext, request: Any, value: Any, why: str) -> int:
    """Dead-letter each continuation of a completed job that has no record; return how many.

    `value` is the job's result, None if it has expired. Raises one of `PUBLISH_ERRORS`.
    """
    dead_lettered = 0
    error = PublishFailed(why)
    following = [*continuations_of(request, value)]
    if request.chord:
        following.append(Continuation("chord", 0, request.chord))
    for one in following:
        own = usable_id(_options(one).get("task_id"))
        if own is None or yard.records.read(own).state is State.NONE:
            dead_letter(yard, request, one, error)
            dead_lettered += 1
    return dead_lettered


def dead_letter_following(yard: WorkerContext, job_id: str, message: Any, why: str) -> int:
    """Dead-letter the continuations in a completed job's message; this runs in the main process."""
    stored = yard.records.result(job_id)
    value = None if stored is None else json.loads(stored).get("result")
    request = Context({**_request_fields(message), "id": job_id, QUEUE: yard.source(message)})
    fix_continuations(request)
    return dead_letter_unpublished(yard, request, value, why)


def _request_fields(message: Any) -> dict[str, Any]:
    """Return the fields of a message about its continuations, in either of Celery's protocols."""
    headers = message.headers or {}
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - a body that cannot be decoded names no continuation
        return {}
    embed = payload if isinstance(payload, dict) else payload[2] or {}
    embedded = {name: embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    return embedded | {name: headers.get(name) for name in ("root_id", "group")}


def _id_of(yard: WorkerContext, request: Any, one: Continuation) -> str:
    """Return the continuation's own id, or a derived one if another job uses or used that id."""
    own = usable_id(_options(one).get("task_id"))
    # The parts of a chord share its body.
    around = request.group if one.kind == "chord" and request.group else request.id
    derived = continuation_id(around, one.kind, one.index)
    if own is None:
        return derived
    known = yard.records.read(own)
    same = known.state is State.DEAD_LETTERED and known.job_type == _task_of(one)
    return own if same or known.state is State.NONE else derived


def _outcome(request: Any, one: Continuation, error: BaseException) -> Failed:
    invalid = is_invalid(error)
    remedy = (
        "replay the dead letter with an edited payload, or enqueue a new job"
        if invalid
        else "correct the cause, then replay the dead letter"
    )
    text = (
        f"{one.kind} {one.index} of job {request.id} was not published: "
        f"{type(error).__name__}: {error}. The job's own outcome does not change; {remedy}"
    )
    given = one.signature if isinstance(one.signature, dict) else {"given": one.signature}
    signature = {name: pack(value) for name, value in given.items() if name not in _ARGUMENTS}
    return plain_failure(
        Category.VALIDATION_ERROR if invalid else Category.INTERNAL_ERROR,
        "continuation_invalid" if invalid else "continuation_unpublished",
        type(error).__name__,
        text,
        {"kind": one.kind, "of_job": request.id, "signature": signature},
    )


def _message(job_id: str, request: Any, one: Continuation) -> RawMessage:
    """Return the message of a continuation that could not be built, without its options.

    A replay publishes this message.
    """
    given = one.signature if isinstance(one.signature, dict) else {}
    options = _options(one)
    args, kwargs = given.get("args") or [], given.get("kwargs") or {}
    before = [] if given.get("immutable") else list(one.before)
    embed = {
        "callbacks": options.get("link"),
        "errbacks": options.get("link_error"),
        "chain": one.rest or None,
        "chord": options.get("chord"),
    }
    headers = {
        "lang": "py",
        "task": _task_of(one),
        "id": job_id,
        "root_id": request.root_id or request.id,
        "parent_id": request.id,
        "group": options.get("group_id"),
    }
    return RawMessage(
        body=_encoded([[*before, *args], kwargs, embed]),
        headers={name: pack(value) for name, value in headers.items()},
        properties={"correlation_id": job_id, "delivery_mode": 2},
        content_type="application/json",
        content_encoding="utf-8",
    )


def _encoded(body: Any) -> bytes:
    try:
        return str(dumps(body)).encode()
    except (TypeError, ValueError, RecursionError):
        # Values without a JSON form are kept for people; such a message could not be published.
        return str(dumps(pack(body))).encode()


def _options(one: Continuation) -> Mapping[str, Any]:
    options = one.signature.get("options") if isinstance(one.signature, dict) else None
    return options if isinstance(options, Mapping) else {}


def _task_of(one: Continuation) -> str:
    name = one.signature.get("task") if isinstance(one.signature, dict) else None
    return clean_text(name)[:LONGEST_ID] if isinstance(name, str) and name else "(none)"


def _queue_of(yard: WorkerContext, request: Any, one: Continuation) -> str:
    asked: Any = _options(one).get("queue")
    name = _task_of(one)
    if is_text(asked) and 0 < len(asked) <= LONGEST_ID:
        return yard.queue_of(asked)
    if name in yard.catalogue:
        return yard.catalogue[name].queue
    return str(request.get(QUEUE) or "")
