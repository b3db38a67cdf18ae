"""The shape of a message: what Celery takes for granted and would end a worker by."""

from __future__ import annotations

from typing import Any, Final

from taskyard.wire import Stamp
from taskyard.wire.headers import usable_id
from taskyard.wire.unread import UNREAD

__all__ = ["fault_of"]

_LONGEST_LIMIT_S: Final = 10**8
_CONTINUATIONS: Final = frozenset({"callbacks", "errbacks", "chain", "chord"})
# What Celery's child and we read of a request beside its message's headers. Celery lays a body's
# `embed` over all of that: one job's message would run as another job.
_OF_THE_REQUEST: Final = frozenset(
    {
        "args",
        "called_directly",
        "correlation_id",
        "delivery_info",
        "headers",
        "hostname",
        "id",
        "is_eager",
        "kwargs",
        "properties",
        "reply_to",
        "task",
        "taskyard",
        "taskyard_attempt",
        "taskyard_holder",
        "taskyard_queue",
        "timelimit",
    }
)


def fault_of(message: Any) -> str | None:  # noqa: PLR0911 - one fault a line
    """What is wrong with the shape of a message that claims to be a task, None if nothing is."""
    headers = message.headers or {}
    if UNREAD in headers:
        return f"its AMQP properties cannot be read; header {UNREAD!r} holds them as they came"
    if "task" not in headers:
        return _first_protocol_fault(message)
    for name in ("id", "task"):
        if not _is_name(headers.get(name)):
            return f"header {name!r} must be a short plain text, got {headers.get(name)!r:.60}"
    for name in ("content_type", "content_encoding"):
        value = getattr(message, name, None)
        if value is not None and not isinstance(value, str):
            return f"{name} must be a text, got {value!r:.60}"
    try:
        Stamp.read(headers)
    except ValueError as error:
        # Judged as one without a stamp, a stale message could run again.
        return str(error)
    limits = _limits_fault(headers, "header 'timelimit'")
    if limits is not None:
        return limits
    stamped = headers.get("stamped_headers")
    if stamped is not None and not _are_texts(stamped):
        return f"header 'stamped_headers' must be a list of texts, got {stamped!r:.60}"
    return _body_fault(message)


def _first_protocol_fault(message: Any) -> str | None:
    """Protocol 1 says in its body what later ones say in headers; None where it says no task."""
    try:
        told = message.payload
    except Exception:  # noqa: BLE001 - Celery's own path reports what cannot be decoded
        return None
    if not isinstance(told, dict) or "task" not in told:
        return None
    for name in ("id", "task"):
        if not _is_name(told.get(name)):
            return f"{name!r} in the body must be a short plain text, got {told.get(name)!r:.60}"
    args, kwargs = told.get("args", []), told.get("kwargs", {})
    return (
        _limits_fault(told, "'timelimit' in the body")
        or _call_fault(args, kwargs)
        or _embed_fault(_embed_of(told), {})
    )


def _embed_of(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("callbacks", "errbacks", "chord") if name in told}


def _limits_fault(told: Any, name: str) -> str | None:
    limits = told.get("timelimit")
    if limits is None or _are_limits(limits):
        return None
    return f"{name} must be two numbers or nulls, got {limits!r:.60}"


def _call_fault(args: Any, kwargs: Any) -> str | None:
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return "args must be a list and kwargs a mapping"
    return None


def _are_limits(limits: Any) -> bool:
    if not isinstance(limits, list | tuple) or len(limits) != 2:  # noqa: PLR2004 - hard, soft
        return False
    return all(
        item is None or (isinstance(item, int | float) and 0 < item < _LONGEST_LIMIT_S)
        for item in limits
    )


def _is_name(value: Any) -> bool:
    """Whether a header can be a key: a text of a key's length that every store can hold."""
    return usable_id(value) is not None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _body_fault(message: Any) -> str | None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery's own path reports what cannot be decoded
        return None
    if not isinstance(payload, list | tuple) or len(payload) != 3:  # noqa: PLR2004 - protocol 2
        return "the body must be [args, kwargs, embed]"
    args, kwargs, embed = payload
    if embed is not None and not isinstance(embed, dict):
        return _call_fault(args, kwargs) or "embed must be a mapping"
    return _call_fault(args, kwargs) or _embed_fault(embed or {}, message.headers or {})


def _embed_fault(embed: dict[str, Any], headers: Any) -> str | None:
    for name in ("callbacks", "errbacks", "chain"):
        if not _are_signatures(embed.get(name)):
            return f"embed {name!r} must be a list of signatures"
    if embed.get("chord") is not None and not _is_signature(embed["chord"]):
        return "embed 'chord' must be a signature"
    for name in embed.keys() - _CONTINUATIONS:
        if name in _OF_THE_REQUEST or name in headers:
            return f"embed {name!r:.60} would take the place of the message's own"
    return None


def _are_signatures(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(_is_signature(item) for item in value)


def _is_signature(value: Any) -> bool:
    """Whether Celery can make a task's message of it: the rest it has defaults for."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("task"), str)
        and isinstance(value.get("args") or [], list | tuple)
        and isinstance(value.get("kwargs") or {}, dict)
        and isinstance(value.get("options", {}), dict)
    )
