"""Convert the headers and body of a kombu message to Taskyard's own values."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from taskyard.broker.compressed_bodies import body_as_it_came
from taskyard.clock import to_us, us_of
from taskyard.engine.source_queue import QUEUE
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import clean_text, pack
from taskyard.wire.stamp_header import HEADER, LONGEST_ID, MOST_RETRIES, Stamp, usable_id

__all__ = [
    "broker_queue",
    "is_identified",
    "job_id_of",
    "named_task",
    "position_in",
    "position_of",
    "raw_message",
    "read_stamp",
    "stamp_of",
    "task_of",
    "was_delivered_before",
]

# How often `self.replace` has replaced this task by another, as Celery counts it.
_NESTING: Final = "replaced_task_nesting"
_CLOCKS_MAY_DIFFER_US: Final = us_of(86_400)
_UNIDENTIFIED: Final = uuid.UUID("c0a5b1de-53a0-5e6c-8c39-9a6f7a2e5d01")


def raw_message(message: Any) -> RawMessage:
    """Return the original message; a body in bytes stays bytes, compressed if it was."""
    return RawMessage(
        body=body_as_it_came(message),
        headers=_packed(message.headers),
        properties=_packed(message.properties),
        content_type=_text(message.content_type),
        content_encoding=_text(message.content_encoding),
    )


def _packed(values: Any) -> dict[str, Any]:
    return {clean_text(str(name)): pack(value) for name, value in dict(values or {}).items()}


def _text(value: Any) -> str | None:
    return None if value is None else clean_text(str(value))


def read_stamp(headers: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp in a message's headers, None if there is none.

    Raises ValueError if the stamp is broken. Only admission creates epochs. An epoch that is
    over a day ahead is not Taskyard's, and would end every later epoch of its job.
    """
    stamp = Stamp.read(headers)
    if stamp is not None and stamp.epoch > to_us(datetime.now(UTC)) + _CLOCKS_MAY_DIFFER_US:
        raise ValueError(
            f"header {HEADER!r}: epoch must be in the past, got {stamp.epoch}, over a day ahead"
        )
    return stamp


def stamp_of(message: Any) -> Stamp | None:
    """Return the message's stamp; a broken stamp counts as absent."""
    try:
        return read_stamp(message.headers or {})
    except ValueError:
        return None


def _stamp_in(request: Any) -> Stamp | None:
    """Return the stamp of Celery's request in the child process; a broken one counts as absent."""
    try:
        return read_stamp({HEADER: getattr(request, HEADER, None)})
    except ValueError:
        return None


def position_of(message: Any) -> Stamp | None:
    """Return the message's stamp, with Celery's count of replacements added.

    None if the message has neither. A worker without Taskyard's stamps counts replacements too.
    """
    return _with_nesting(stamp_of(message), (message.headers or {}).get(_NESTING))


def position_in(request: Any) -> Stamp | None:
    """Return the stamp of Celery's request in the child, with Celery's count of replacements."""
    return _with_nesting(_stamp_in(request), getattr(request, _NESTING, None))


def _with_nesting(stamp: Stamp | None, nesting: object) -> Stamp | None:
    # A bool is an int in Python but not in Redis; a larger number than a stamp may hold fits no
    # ledger.
    count = nesting if type(nesting) is int and 0 < nesting < MOST_RETRIES else 0
    if not count:
        return stamp
    return Stamp(0, nesting=count) if stamp is None else replace(stamp, nesting=count)


def is_identified(message: Any) -> bool:
    """Return whether the message has a valid id, by which its job is recognized."""
    return usable_id((message.headers or {}).get("id")) is not None


def job_id_of(message: Any) -> str:
    """Return the job's id; for a message without a valid id, an id that its bytes determine.

    Equal messages get the same derived id. It serves only to count deliveries.
    """
    found = usable_id((message.headers or {}).get("id"))
    if found is not None:
        return found
    raw = raw_message(message)
    # Not the delivery tag, which differs at the next delivery.
    return str(uuid.uuid5(_UNIDENTIFIED, f"{raw.body.hex()}:{sorted(raw.headers.items())!r}"))


def was_delivered_before(message: Any) -> bool:
    """Return whether the broker says that it has delivered this message before."""
    return bool((message.delivery_info or {}).get("redelivered"))


def task_of(message: Any) -> str:
    """Return the task's name, `(none)` if the headers do not have it."""
    return named_task(message.headers or {})


def named_task(headers: Mapping[str, Any]) -> str:
    """Return the task's name in a message's headers, `(none)` if they do not have it."""
    found = headers.get("task")
    if not isinstance(found, str) or not found:
        return "(none)"
    return clean_text(found)[:LONGEST_ID]


def broker_queue(message: Any) -> str | None:
    """Return the broker's queue of a message, from its consumer's mark or from the message."""
    taken = getattr(message, QUEUE, None)
    found = (message.delivery_info or {}).get("routing_key") if taken is None else taken
    return found if isinstance(found, str) else None
