"""Check the shape of a message, because a wrong one would end Celery's worker."""

from __future__ import annotations

from typing import Any, Final

from taskyard.engine.forged_headers import OF_THE_REQUEST, is_ours
from taskyard.engine.header_faults import fault_of_headers
from taskyard.wire.undecoded_mark import UNREAD

__all__ = ["fault_of"]

# Continuations of a task; they belong in the body.
_CONTINUATIONS: Final = ("callbacks", "errbacks", "chain", "chord")


def fault_of(message: Any) -> str | None:
    """Return what is wrong with the shape of a task's message; None if it is valid."""
    headers = message.headers or {}
    if UNREAD in headers:
        return (
            f"the AMQP properties of the message cannot be decoded; header {UNREAD!r} holds "
            "their original bytes"
        )
    if "task" not in headers:
        return _first_protocol_fault(message)
    return (
        fault_of_headers(headers)
        or _type_fault(message)
        or _misplaced_fault(headers)
        or _body_fault(message)
    )


def _type_fault(message: Any) -> str | None:
    for name in ("content_type", "content_encoding"):
        value = getattr(message, name, None)
        if value is not None and not isinstance(value, str):
            return f"{name} must be a text, got {value!r:.60}"
    return None


def _misplaced_fault(headers: Any) -> str | None:
    for name in _CONTINUATIONS:
        if headers.get(name) is not None:
            return f"header {name!r} must be in the body's embed, got {headers[name]!r:.60}"
    return None


def _first_protocol_fault(message: Any) -> str | None:
    """Return the fault of a message in protocol 1, whose body has what headers hold later.

    None if the body names no task.
    """
    try:
        document = message.payload
    except Exception:  # noqa: BLE001 - Celery itself reports what cannot be decoded
        return None
    if not isinstance(document, dict) or "task" not in document:
        return None
    args, kwargs = document.get("args", []), document.get("kwargs", {})
    return (
        fault_of_headers({**document, "headers": None}, "{!r} in the body")
        or fault_of_headers({**_SOUND, **(message.headers or {})})
        or _call_fault(args, kwargs)
        or _embed_fault({n: document[n] for n in _CONTINUATIONS if n in document}, {})
    )


# Protocol 1 has these in its body.
_SOUND: Final = {"id": "-", "task": "-"}


def _call_fault(args: Any, kwargs: Any) -> str | None:
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return "args must be a list and kwargs a mapping"
    return None


def _body_fault(message: Any) -> str | None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery itself reports what cannot be decoded
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
    for name in embed.keys() - set(_CONTINUATIONS):
        if name in OF_THE_REQUEST or name in headers or is_ours(name):
            return f"embed {name!r:.60} would replace the message's own"
    return None


def _are_signatures(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(_is_signature(item) for item in value)


def _is_signature(value: Any) -> bool:
    """Return whether Celery can build a task's message from a value; other fields have defaults."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("task"), str)
        and isinstance(value.get("args") or [], list | tuple)
        and isinstance(value.get("kwargs") or {}, dict)
        and isinstance(value.get("options", {}), dict)
    )
