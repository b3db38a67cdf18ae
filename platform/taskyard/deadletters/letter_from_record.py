"""Build a dead letter from a record and the raw message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from taskyard.jobs.replay_by_category import replay_eligible
from taskyard.jobs.retry_policy import Category
from taskyard.records import Record
from taskyard.wire.credential_argument import without_credential
from taskyard.wire.letter_envelope import Letter, RawMessage, letter_id, plain_body
from taskyard.wire.lossless_json import clean_text, pack
from taskyard.wire.redaction import redact_text

__all__ = ["build_letter", "shown_arguments"]

_SHOWN_BYTES: Final = 262_144


def build_letter(record: Record, message: RawMessage) -> Letter:
    """Return the dead letter of a record; the same death always gives the same bytes."""
    message = without_credential(message)
    cause = record.cause
    category = _category(cause.get("category"))
    args, kwargs = shown_arguments(message)
    decided = record.number("decided")
    evidence = _evidence(cause.get("evidence"))
    return Letter(
        letter_id=letter_id(record.job_id, record.epoch, record.generation),
        job_id=record.job_id,
        epoch=record.epoch,
        generation=record.generation,
        version=record.number("version"),
        job_type=record.job_type,
        domain=_text(record.fields.get("domain")),
        queue=record.queue,
        priority=_priority(record.fields.get("priority")),
        message=message,
        args=args,
        kwargs=kwargs,
        reply_to=_text(message.properties.get("reply_to")),
        category=category,
        code=clean_text(str(cause.get("code", ""))),
        error_class=clean_text(str(cause.get("error_class", ""))),
        error_message=_error_text(cause.get("message")),
        traceback=_error_text(cause.get("traceback")),
        fingerprint=str(cause.get("fingerprint", "")),
        attempts=record.history,
        first_failure_us=record.number("first_failure") or decided,
        last_failure_us=decided,
        replay_eligible=replay_eligible(category, evidence),
        escalate_to=_text(cause.get("escalate_to")),
        worker=record.fields.get("worker"),
        evidence=evidence,
    )


def shown_arguments(message: RawMessage) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Return args and kwargs if the body is Celery's JSON, else (None, None).

    A compressed body is decoded only if it is small: the letter must not be larger than the
    message.
    """
    try:
        args, kwargs, _ = json.loads(plain_body(message, _SHOWN_BYTES))
    except (ValueError, TypeError, RecursionError):
        return None, None
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        return None, None
    return pack(args), {clean_text(str(k)): pack(v) for k, v in kwargs.items()}


def _category(value: object) -> Category:
    """Return the category of the cause; a record with a damaged cause still gives a dead letter."""
    known = {str(category): category for category in Category}
    return known.get(str(value), Category.INTERNAL_ERROR)


def _priority(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _evidence(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {} if value is None else {"evidence": pack(value)}
    return {clean_text(str(k)): pack(v) for k, v in value.items()}


def _error_text(value: object) -> str:
    """Return the error's text without secrets: a dead letter stays in Postgres for months."""
    return "" if value is None else redact_text(clean_text(str(value)))


def _text(value: object) -> str | None:
    return None if value is None else clean_text(str(value))
