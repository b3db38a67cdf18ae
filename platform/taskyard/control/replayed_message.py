"""The captured message of a dead letter, unchanged or with edited arguments.

An edited body is Celery's protocol 2 in JSON, `[args, kwargs, embed]`. The embed (callbacks,
errbacks, chain, chord) is kept from the original, so that a workflow continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from taskyard.errors import InvalidPayload, Refused
from taskyard.wire import Letter, RawMessage
from taskyard.wire.decompression import UNPACKED_LIMIT, UnpacksTooLarge
from taskyard.wire.letter_envelope import plain_body

__all__ = ["Edit", "captured", "check_identity", "edited", "for_job"]

_SHOWN_ARGUMENTS: Final = frozenset({"argsrepr", "kwargsrepr"})
_PARTS: Final = 3
# Column -> the letter's field; a replay uses these.
_IDENTITY: Final = {
    "original_request_id": "job_id",
    "epoch": "epoch",
    "generation": "generation",
    "job_type": "job_type",
    "queue": "queue",
}


@dataclass(frozen=True, slots=True)
class Edit:
    """New arguments of a job; raises `InvalidPayload` if they are not JSON.

    With `payload_only`, `args` is one payload, as a job of the catalogue has it. A payload for a
    task that was called with several arguments is refused, because the other arguments would be
    lost.
    """

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    payload_only: bool = False

    def __post_init__(self) -> None:
        try:
            text = json.dumps([self.args, self.kwargs], allow_nan=False, ensure_ascii=False)
            text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidPayload(f"the edited payload is not JSON: {error}") from error
        if "\\u0000" in text:
            raise InvalidPayload(
                "the edited payload has a NUL character (\\u0000), which cannot be stored: remove "
                "it"
            )


def captured(row: Mapping[str, Any]) -> RawMessage:
    """Return the message of a row of `dead_letter_queue`, byte-exact; raises `Refused` without one.

    If Postgres refused a part of the dead letter, the whole dead letter is in `raw_envelope`.
    """
    if row["raw_envelope"] is not None:
        return _whole(row).message
    return RawMessage(
        body=bytes(row["body"]),
        headers=row["headers"] or {},
        properties=row["properties"] or {},
        content_type=row["content_type"],
        content_encoding=row["content_encoding"],
    )


def for_job(message: RawMessage, job_id: str) -> RawMessage:
    """Return `message` with the task id `job_id`, which is the job's id in its letter.

    The two differ if a message came without an id, or with the id of another job.
    """
    if "task" not in message.headers or message.headers.get("id") == job_id:
        return message
    return message.model_copy(update={"headers": {**message.headers, "id": job_id}})


def check_identity(row: Mapping[str, Any]) -> None:
    """Raise `Refused` if the row names another job, epoch, type or queue than its dead letter.

    A value that Postgres could not store is in the row in a cleaned form, and a replay uses the
    row.
    """
    if row["raw_envelope"] is None:
        return
    letter = _whole(row)
    for column, name in _IDENTITY.items():
        if row[column] != getattr(letter, name):
            raise Refused(
                f"the {name} of letter {row['id']} could not be stored as it came "
                f"({row['mirror_error']}), so a replay would run another job. Enqueue the job anew"
            )


def _whole(row: Mapping[str, Any]) -> Letter:
    try:
        return Letter.parse(bytes(row["raw_envelope"]))
    except ValidationError as error:
        raise Refused(f"letter {row['id']} holds no message: {row['mirror_error']}") from error


def edited(message: RawMessage, edit: Edit, limit: int = UNPACKED_LIMIT) -> RawMessage:
    """Return `message` with new arguments; raises `Refused` if that would lose something.

    A compressed body is read up to `limit` bytes; the new one is not compressed.
    """
    args, kwargs, embed = _parts(message, limit)
    if edit.payload_only and not _is_payload(args, kwargs):
        raise Refused(
            f"the task was called with {_call(args, kwargs)}, and one payload would replace all "
            "of these; give every argument: --args '[...]' and --kwargs '{...}' in JSON. "
            "See: taskyard dlq replay --help"
        )
    body = json.dumps([edit.args, edit.kwargs, embed]).encode()
    dropped = _SHOWN_ARGUMENTS | {"compression"}
    headers = {name: value for name, value in message.headers.items() if name not in dropped}
    return RawMessage(
        body=body,
        headers=headers,
        properties=message.properties,
        content_type="application/json",
        content_encoding="utf-8",
    )


def _is_payload(args: object, kwargs: object) -> bool:
    """Return whether the arguments are one payload, or cannot be read at all."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return True
    return len(args) == 1 and not kwargs


def _call(args: Any, kwargs: Any) -> str:
    """Describe how many arguments there are, and the names of keyword ones.

    Values may be secret.
    """
    named = f" and {', '.join(map(str, kwargs))}" if kwargs else ""
    return f"{len(args)} positional argument{'s' * (len(args) != 1)}{named}"


def _parts(message: RawMessage, limit: int) -> list[Any]:
    """Return [args, kwargs, embed]; the first two may have any form."""
    try:
        parts = json.loads(plain_body(message, limit))
    except UnpacksTooLarge as error:
        raise Refused(
            f"the message's body is too large to be edited: {error}. To allow it, set "
            "TASKYARD_MAX_UNPACKED_BYTES higher, here and for the workers"
        ) from error
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"the message's body ({message.content_type or 'no content type'}) cannot be read "
            f"({error}), so an edit would lose its callbacks; enqueue the job anew instead"
        ) from error
    if not isinstance(parts, list) or len(parts) != _PARTS:
        raise Refused(
            "the message's body is not [args, kwargs, embed], so an edit would lose its callbacks; "
            "enqueue the job anew instead"
        )
    return parts
