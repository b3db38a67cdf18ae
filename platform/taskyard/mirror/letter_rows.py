"""Convert a dead letter to its row of `dead_letter_queue`."""

from __future__ import annotations

import uuid
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from taskyard.clock import from_us
from taskyard.database.bulk_write import PIECE_BYTES
from taskyard.jobs import Category
from taskyard.jobs.letter_states import first_status
from taskyard.jobs.replay_by_category import replay_eligible
from taskyard.mirror.rabbit_drops import is_drop
from taskyard.mirror.read_delivery import Readable, Unreadable
from taskyard.wire import redact_text

__all__ = ["in_ascii", "junk_row", "row", "salvaged_row"]

_REPEATED: Final = "; it was delivered before, so another row may have the same content"
_JUNK_NAMESPACE: Final = uuid.UUID("b2c6dc0e-6f1c-5b7e-8f1d-0d1d8e0c7a55")
_INTEGER: Final = 2**31
_BIGINT: Final = 2**63
# Postgres indexes at most 2,704 bytes a row: four bytes a character, two such columns an index.
_NAME_LENGTH: Final = 300
_TEXT_LENGTH: Final = 100_000
_NAMES: Final = frozenset({"original_request_id", "job_type", "queue", "domain", "fingerprint"})


def row(item: Readable) -> dict[str, Any]:
    """Return every column that the mirror fills; an operator's columns keep their values."""
    return _columns(item) | {"first_failure_at": from_us(item.letter.first_failure_us)}


def _columns(item: Readable) -> dict[str, Any]:
    letter, message = item.letter, item.letter.message
    return {
        "id": item.id,
        "decided_at": item.decided_at,
        "original_request_id": letter.job_id,
        "epoch": letter.epoch,
        "generation": letter.generation,
        "version": letter.version,
        "schema_version": letter.schema_version,
        "job_type": letter.job_type,
        "domain": letter.domain,
        "queue": letter.queue,
        "priority": letter.priority,
        "failure_category": letter.category.value,
        "failure_reason": letter.error_message,
        "failure_code": letter.code,
        "error_class": letter.error_class,
        "traceback": letter.traceback,
        "fingerprint": letter.fingerprint,
        "body": message.body,
        "headers": message.headers,
        "properties": message.properties,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "args": letter.args,
        "kwargs": letter.kwargs,
        "attempts": [note.model_dump() for note in letter.attempts],
        "evidence": letter.evidence,
        "worker": letter.worker,
        "reply_to": letter.reply_to,
        "escalate_to": letter.escalate_to,
        "last_failure_at": item.decided_at,
        "replay_eligible": letter.replay_eligible,
        "status": first_status(letter.escalate_to).value,
        "mirror_error": None,
        "raw_envelope": None,
    }


def salvaged_row(item: Readable, why: str) -> dict[str, Any]:
    """Return the dead letter in a form that Postgres accepts.

    The row also has the bytes of the original envelope.
    """
    kept = {name: _fit(name, value) for name, value in _columns(item).items()}
    kept |= {"attempts": [], "evidence": {}, "headers": None, "properties": None}
    kept |= {"args": None, "kwargs": None, "first_failure_at": _moment(item)}
    if len(kept["body"]) > PIECE_BYTES:
        kept["body"] = None  # the envelope has the body
    return kept | {"mirror_error": _why(why), "raw_envelope": _envelope(item)}


def in_ascii(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with escapes for characters that a database not in UTF-8 may refuse."""
    return {
        name: _cut(name, value.encode("ascii", "backslashreplace").decode())
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }


def _moment(item: Readable) -> datetime | None:
    try:
        return from_us(item.letter.first_failure_us)
    except (ValueError, OverflowError, OSError):
        return None


def _envelope(item: Readable) -> bytes:
    """Return bytes from which the whole dead letter can be read again."""
    if is_drop(item.delivery):
        try:
            # A message that is not a letter has no cause and no headers.
            return item.letter.encode()
        except ValueError:
            pass  # a header with a lone surrogate: the message's bytes are kept
    return item.delivery.body


def junk_row(item: Unreadable, now: datetime) -> dict[str, Any]:
    """Return a row for bytes that are not a dead letter; the row's time is `now`.

    The id of a dead letter of which only the bytes can be stored is the hash of these bytes: it is
    the same at each delivery. Other bytes get the id of their delivery.
    """
    delivery = item.delivery
    repeated = delivery.delivered_before and not item.is_letter
    why = _why(f"{item.why}{_REPEATED if repeated else ''}")
    by_bytes = uuid.uuid5(_JUNK_NAMESPACE, sha256(delivery.body).hexdigest())
    return {
        "id": by_bytes if item.is_letter else delivery.own_id,
        "decided_at": now,
        "version": 0,
        "failure_category": Category.UNDECODABLE.value,
        "failure_reason": why,
        "failure_code": "undecodable",
        "content_type": _named(item.delivery.content_type),
        "content_encoding": _named(item.delivery.content_encoding),
        "replay_eligible": replay_eligible(Category.UNDECODABLE),
        "status": first_status(None).value,
        "mirror_error": why,
        "raw_envelope": item.delivery.body,
    }


def _named(value: object) -> str | None:
    """Return a header's value as a text of limited size; clients may put any value there."""
    return None if value is None else _text(str(value))[:_NAME_LENGTH]


def _fit(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _cut(name, _text(value))
    if isinstance(value, int) and not isinstance(value, bool):
        limit = _BIGINT if name in {"epoch", "version"} else _INTEGER
        within = -limit <= value < limit
        # `version` may not be NULL; every later copy replaces 0.
        return value if within else 0 if name in {"version", "schema_version"} else None
    return value


def _cut(name: str, text: str) -> str:
    return text[: _NAME_LENGTH if name in _NAMES else _TEXT_LENGTH]


def _why(words: str) -> str:
    """Return why the row is incomplete: secrets masked, at most 2,000 characters.

    Postgres quotes values of the row in its errors, so `words` may contain secrets.
    """
    return _text(redact_text(words))[:2000]


def _text(value: str) -> str:
    whole = value.encode("utf-8", "replace").decode()
    return whole.replace("\x00", "\N{REPLACEMENT CHARACTER}")
