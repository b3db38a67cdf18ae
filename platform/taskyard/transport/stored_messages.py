"""Parse and rebuild the messages that Redis stores, also those that are broken."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any, Final

__all__ = ["mark_redelivered", "message_of", "stored_parts", "suffix_of", "wrap_junk"]

_PARTS: Final = 3


def message_of(raw: bytes, tag: str, queue: str) -> dict[str, Any]:
    """Return the message in an entry of a queue's list, with `tag` as its delivery tag.

    `tag` is also its field in the hash of unacknowledged messages. An entry that is not a kombu
    message becomes a message that no consumer takes for a task: its body is the entry's bytes, its
    content type is binary.
    """
    message = _loaded(raw)
    if not _is_message(message):
        message = wrap_junk(raw, queue)
    message["properties"]["delivery_tag"] = tag
    return dict(message)


def wrap_junk(raw: bytes, queue: str) -> dict[str, Any]:
    """Return a message without headers, with raw bytes that are no message as its body."""
    return {
        "body": base64.b64encode(raw).decode("ascii"),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "priority": 0,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("headers", {}), dict):
        return False
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(message.get("body", ""), str):
        return False
    if not isinstance(properties.get("delivery_info"), dict):
        return False
    if properties.get("body_encoding") == "base64":
        return _is_base64(message.get("body") or "")
    return properties.get("body_encoding") is None


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text)
    except ValueError:
        return False
    return True


def suffix_of(queue: str) -> str:
    """Return the text that follows a raw message in the hash of unacknowledged messages.

    It names no exchange, and the queue as routing key.
    """
    return f', "", {json.dumps(queue)}]'


def stored_parts(stored: bytes) -> tuple[dict[str, Any] | bytes, str, str]:
    """Return message (or raw bytes), exchange and routing key of an unacknowledged entry."""
    parts = _loaded(stored)
    if isinstance(parts, list) and len(parts) == _PARTS and isinstance(parts[0], dict):
        return parts[0], parts[1], parts[2]
    # Raw bytes between brackets: our own suffix names the queue.
    head, _, tail = stored.rpartition(b', "", ')
    return _raw_of(head[1:]), "", json.loads(tail[:-1])


def _loaded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _raw_of(written: bytes) -> bytes:
    """Return a stored message that is not a JSON object as the bytes that were popped.

    The script writes such a message as a JSON text, byte by byte.
    """
    if not written.startswith(b'"'):
        return written
    text: str = json.loads(written.decode("latin-1"))
    return text.encode("latin-1")


def mark_redelivered(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with kombu's two marks of redelivery, if it has fields for them.

    The message gets a new delivery tag. kombu's transport records and acknowledges a message by
    its tag; with the old one, a worker that counted as dead would acknowledge a message that
    another worker holds.
    """
    headers, properties = message.get("headers"), message.get("properties")
    if isinstance(headers, dict):
        headers["redelivered"] = True
    if isinstance(properties, dict):
        properties["delivery_tag"] = str(uuid.uuid4())
        if isinstance(properties.get("delivery_info"), dict):
            properties["delivery_info"]["redelivered"] = True
    return message
