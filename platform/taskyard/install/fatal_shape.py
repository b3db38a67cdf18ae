"""What would end or block Celery's own worker, and each next one that takes the message.

A watched task's message goes Celery's own way, whatever is odd about it; only from this one no
worker would come back. It is treated as Celery treats an invalid task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["fatal_fault"]

_PAIR: Final = 2
_PROTOCOL_2: Final = 3


def fatal_fault(message: Any) -> str | None:
    """What would end the worker, or keep one of its processes for ever; None where Celery copes."""
    headers = message.headers
    if not isinstance(headers, Mapping) or "task" not in headers:
        return None
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str | int):
            return f"header {name!r} must be a text, got {headers.get(name)!r:.60}"
    if isinstance(headers.get("shadow"), list | dict):
        return f"header 'shadow' must be a text, got {headers['shadow']!r:.60}"
    limits, stamped = headers.get("timelimit"), headers.get("stamped_headers")
    if limits and not _are_limits(limits):
        return f"header 'timelimit' must be two numbers or nulls, got {limits!r:.60}"
    if stamped and not _are_keys(stamped):
        return f"header 'stamped_headers' must be a list of texts, got {stamped!r:.60}"
    return _body_fault(message)


def _are_limits(limits: Any) -> bool:
    return (
        isinstance(limits, list | tuple)
        and len(limits) == _PAIR
        and all(item is None or isinstance(item, int | float) for item in limits)
    )


def _are_keys(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)
    )


def _body_fault(message: Any) -> str | None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery's own path reports what cannot be decoded
        return None
    if isinstance(payload, list | tuple) and len(payload) == _PROTOCOL_2:
        embed = payload[2]
        if embed and not isinstance(embed, dict):
            return f"embed must be a mapping, got {embed!r:.60}"
    return None
