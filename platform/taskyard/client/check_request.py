"""Check a request to enqueue a job, before anything is sent."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final, TypedDict

from pydantic import BaseModel, ValidationError

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.client.job_ids import new_job_id
from taskyard.errors import InvalidPayload, NotPermitted, PayloadTooLarge
from taskyard.jobs import Catalogue, JobType, RetryPolicy
from taskyard.settings import Settings

__all__ = ["CheckedRequest", "EnqueueOptions", "EnqueueRequest", "check"]

_ENCODER: Final = json.JSONEncoder(allow_nan=False)
_DEEPEST: Final = 100
_LONGEST_S: Final = 10**9
_JOB_IDS: Final = uuid.UUID("a3c9a0fe-6d37-5b1e-9f0c-1f1f6b5a7d22")

Seconds = timedelta | float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueRequest:
    """A request to enqueue one job; the fields are those of `Taskyard.enqueue`."""

    job_type: str
    payload: Any
    queue: str | None = None
    priority: int | None = None
    idempotency_key: str | None = None
    unique_for: Seconds | None = None
    countdown: Seconds | None = None
    expires: datetime | Seconds | None = None
    reply_to: str | None = None
    policy: Mapping[str, object] | None = None


class EnqueueOptions(TypedDict, total=False):
    """The fields of `EnqueueRequest` as keywords, besides `job_type` and `payload`."""

    queue: str | None
    priority: int | None
    idempotency_key: str | None
    unique_for: Seconds | None
    countdown: Seconds | None
    expires: datetime | Seconds | None
    reply_to: str | None
    policy: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A checked request: names are resolved, durations are seconds, the payload is data."""

    job_id: str
    keyed: bool
    job_type: JobType
    queue: str
    priority: int
    payload: Any
    payload_json: str
    unique_for_s: float
    countdown_s: float
    expires: datetime | float | None
    reply_to: str | None
    policy: Mapping[str, object] | None


def check(request: EnqueueRequest, settings: Settings, catalogue: Catalogue) -> CheckedRequest:
    """Check a request, and resolve its names.

    Raises `UnknownJobType`, `UnknownQueue`, `UnknownPriority`, `InvalidPayload` or
    `PayloadTooLarge`, each naming field, value and remedy; `NotPermitted` for an operator task.
    """
    if request.job_type in OPERATOR_TASKS:
        # A record may keep its message, and no record may hold a credential.
        raise NotPermitted(
            f"{request.job_type} is an operator task, which acts for the operator who signed "
            "it, and is no job to enqueue. Publish it with: celery -A taskyard.workers.app "
            f"call {request.job_type}. See: taskyard sign"
        )
    job_type = catalogue[request.job_type]
    queue = job_type.queue if request.queue is None else request.queue
    payload = _payload(request.payload)
    payload_json = _encoded(request.job_type, payload, settings.max_payload_bytes)
    _check_model(job_type, payload, payload_json)
    return CheckedRequest(
        job_id=_job_id(request, settings.namespace),
        keyed=request.idempotency_key is not None,
        job_type=job_type,
        queue=queue,
        priority=_priority(request, job_type, queue, settings),
        payload=payload,
        payload_json=payload_json,
        unique_for_s=_unique_for(request, settings),
        countdown_s=_seconds("countdown", request.countdown),
        expires=_expires(request.expires),
        reply_to=_reply_to(request.reply_to),
        policy=_policy(request.policy, job_type, catalogue),
    )


def _payload(payload: Any) -> Any:
    return payload.model_dump(mode="json") if isinstance(payload, BaseModel) else payload


def _encoded(job_type: str, payload: Any, limit: int) -> str:
    try:
        encoded = _ENCODER.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"the payload of {job_type!r} is not JSON: {error}. Pass dicts, lists, texts, finite "
            "numbers, booleans and None, or a pydantic model"
        ) from error
    if encoded.count("[") + encoded.count("{") > _DEEPEST and _depth(payload) > _DEEPEST:
        raise InvalidPayload(
            f"the payload of {job_type!r} is nested more than {_DEEPEST} levels deep. Brokers "
            "and stores allow 200 levels for the whole message. Flatten the payload, or store it "
            "and pass a reference"
        )
    if len(encoded) > limit:
        raise PayloadTooLarge(
            f"the payload of {job_type!r} has {len(encoded)} bytes, the limit is {limit}. "
            "Store the data and pass a reference, or raise TASKYARD_MAX_PAYLOAD_BYTES"
        )
    return encoded


def _depth(payload: Any) -> int:
    """Return how many levels of lists and mappings there are, without recursion."""
    deepest, waiting = 0, [(payload, 1)]
    while waiting:
        value, level = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple):
            deepest = max(deepest, level)
            waiting.extend((item, level + 1) for item in inner)
    return deepest


def _check_model(job_type: JobType, payload: Any, payload_json: str) -> None:
    if job_type.payload_model is not None and not isinstance(payload, Mapping):
        raise InvalidPayload(
            f"the payload of {job_type.name!r} must be a mapping or its model, got {payload!r:.60}"
        )
    if job_type.checks_payload:
        # What the worker validates: JSON has no tuples, and its keys are texts.
        job_type.check_payload(json.loads(payload_json))


def _priority(request: EnqueueRequest, job_type: JobType, queue: str, settings: Settings) -> int:
    configured = settings.queue(queue)
    wanted = job_type.priority if request.priority is None else request.priority
    if wanted is None:
        return configured.default_priority
    return settings.check_priority(queue, wanted)


def _job_id(request: EnqueueRequest, namespace: str) -> str:
    key: object = request.idempotency_key
    if key is None:
        return new_job_id()
    if not isinstance(key, str) or not 0 < len(key) <= 512:  # noqa: PLR2004 - said in the text
        raise InvalidPayload(
            f"idempotency_key must be a text of 1 to 512 characters, got {key!r:.60}"
        )
    return str(uuid.uuid5(_JOB_IDS, json.dumps([namespace, request.job_type, key])))


def _unique_for(request: EnqueueRequest, settings: Settings) -> float:
    if request.unique_for is None:
        return float(settings.unique_for_s) if request.idempotency_key is not None else 0.0
    if request.idempotency_key is None:
        raise InvalidPayload(
            "unique_for is given without an idempotency_key. Pass an "
            "idempotency_key too: it says which job must be unique"
        )
    return _seconds("unique_for", request.unique_for)


def _reply_to(reply_to: object) -> str | None:
    # AMQP cannot carry a longer one, and in a shared script the error would reach other calls.
    if reply_to is None or (isinstance(reply_to, str) and _bytes_of(reply_to) <= 255):  # noqa: PLR2004 - said in the text
        return reply_to
    raise InvalidPayload(f"reply_to must be a text of at most 255 bytes, got {reply_to!r:.60}")


def _bytes_of(text: str) -> float:
    """Return the length in UTF-8; infinite for half a surrogate pair, which no server takes."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return inf


def _expires(expires: datetime | Seconds | None) -> datetime | float | None:
    if expires is None:
        return None
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise InvalidPayload(f"expires must have a time zone, got {expires!r}")
        return expires
    return _seconds("expires", expires)


def _seconds(name: str, value: Seconds | None) -> float:
    if value is None:
        return 0.0
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds) or not 0 <= seconds < _LONGEST_S:
        raise InvalidPayload(f"{name} must be seconds or a timedelta, 0 or more, got {value!r}")
    return float(seconds)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _policy(
    policy: Mapping[str, object] | None, job_type: JobType, catalogue: Catalogue
) -> Mapping[str, object] | None:
    """Return `policy` if the type's own policy is valid with these fields in it."""
    if policy is None:
        return None
    if not isinstance(policy, Mapping):
        raise InvalidPayload(f"policy must be a mapping of policy fields, got {policy!r:.60}")
    try:
        RetryPolicy.model_validate({**job_type.policy.model_dump(exclude_unset=True), **policy})
    except ValidationError as error:
        raise InvalidPayload(_policy_fault(error.errors(include_url=False)[0])) from error
    try:
        _ENCODER.encode(dict(policy))
    except (TypeError, ValueError) as error:
        raise InvalidPayload(
            f"policy is not JSON: {error}. Pass numbers, texts and lists of texts"
        ) from error
    _check_review_queue(policy.get("escalate_on_failure"), catalogue)
    return dict(policy)


def _check_review_queue(name: object, catalogue: Catalogue) -> None:
    if name is not None and name not in catalogue.review_queues:
        raise InvalidPayload(
            f"policy: escalate_on_failure: expected a queue that a job type's policy names "
            f"({', '.join(sorted(catalogue.review_queues)) or 'none does'}), got {name!r:.60}"
        )


def _policy_fault(fault: Any) -> str:
    """Return one sentence about an invalid policy field: its name, what was expected, what came.

    For a misspelt field the sentence suggests the right name.
    """
    place = ".".join(str(part) for part in fault["loc"])
    if not place:
        return f"policy: {fault['msg'].removeprefix('Value error, ')}"
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, RetryPolicy.model_fields, n=1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"known: {', '.join(RetryPolicy.model_fields)}"
        )
        return f"policy: there is no field {place!r}; {hint}"
    return f"policy: {place}: {fault['msg']}, got: {fault['input']!r:.60}"
