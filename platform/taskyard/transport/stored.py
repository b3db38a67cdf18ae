"""Messages as they lie in Redis: reading them, also the broken ones, and putting them back."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

__all__ = ["mark_redelivered", "message_of", "stored_parts", "suffix_of", "wrap_junk"]


def message_of(raw: bytes, tag: str, queue: str) -> dict[str, Any]:
    """The message in a raw list entry, under the tag it was recorded with.

    An entry that is no kombu message becomes one that no consumer can mistake for a task: its
    bytes are the body, its content type is binary.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        message = None
    if not _is_message(message):
        message = wrap_junk(raw, queue)
    message["properties"]["delivery_tag"] = tag
    return dict(message)


def wrap_junk(raw: bytes, queue: str) -> dict[str, Any]:
    """Raw bytes as a message without headers."""
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
    """What follows a raw message in the unacked hash: no exchange, the queue as routing key."""
    return f', "", {json.dumps(queue)}]'


def stored_parts(stored: bytes) -> tuple[dict[str, Any] | bytes, str, str]:
    """(message or raw bytes of junk, exchange, routing key) of an entry in the unacked hash."""
    try:
        parts: Sequence[Any] = json.loads(stored)
        message, exchange, routing_key = parts
    except (ValueError, TypeError, RecursionError):
        # Cut JSON between brackets: our own suffix tells the queue.
        head, _, tail = stored.rpartition(b', "", ')
        return head[1:], "", json.loads(tail[:-1])
    if isinstance(message, str):
        return message.encode("utf-8", "surrogateescape"), exchange, routing_key
    return message, exchange, routing_key


def mark_redelivered(message: dict[str, Any]) -> dict[str, Any]:
    """The message with kombu's two marks of redelivery, where it has the places for them."""
    headers, properties = message.get("headers"), message.get("properties")
    if isinstance(headers, dict):
        headers["redelivered"] = True
    if isinstance(properties, dict) and isinstance(properties.get("delivery_info"), dict):
        properties["delivery_info"]["redelivered"] = True
    return message
