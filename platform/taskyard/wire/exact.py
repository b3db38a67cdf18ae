"""Values that JSON, or Postgres' JSON, cannot hold, packed so that nothing of them is lost.

A packed value is plain JSON. What has no JSON form becomes a mapping with one key that starts
with `$`; a mapping that looks like that itself is packed as a list of pairs.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

__all__ = ["clean_text", "pack", "unpack"]

_DEEPEST: Final = 200


def pack(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one kind of value a line
    """`value` as plain JSON that `unpack` turns back; what it cannot know is kept as its repr."""
    if depth > _DEEPEST:
        return {"$repr": "(nested too deep)"}
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case str():
            return (
                value if _plain(value) else {"$text": _b64(value.encode("utf-8", "surrogatepass"))}
            )
        case bytes() | bytearray() | memoryview():
            return {"$bytes": _b64(bytes(value))}
        case list() | tuple():
            return [pack(item, depth + 1) for item in value]
        case dict():
            return _pack_mapping(value, depth)
        case datetime():
            return {"$datetime": value.isoformat()}
        case Decimal():
            return {"$decimal": str(value)}
        case _:
            return {"$repr": clean_text(repr(value))}


def _pack_mapping(value: dict[Any, Any], depth: int) -> Any:
    simple = all(isinstance(key, str) and _plain(key) and not key.startswith("$") for key in value)
    if simple:
        return {key: pack(item, depth + 1) for key, item in value.items()}
    return {"$map": [[pack(k, depth + 1), pack(v, depth + 1)] for k, v in value.items()]}


def unpack(value: Any) -> Any:
    """The value that was packed."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, content), *_ = value.items()
        if kind == "$map":
            return {unpack(key): unpack(item) for key, item in content}
        if kind in _KINDS:
            return _KINDS[kind](content)
    return {key: unpack(item) for key, item in value.items()}


_KINDS: Final[dict[str, Callable[[str], Any]]] = {
    "$float": float,
    "$text": lambda content: base64.b64decode(content).decode("utf-8", "surrogatepass"),
    "$bytes": base64.b64decode,
    "$datetime": datetime.fromisoformat,
    "$decimal": Decimal,
    "$repr": str,
}


def clean_text(text: str) -> str:
    """Text for people: what UTF-8 or Postgres cannot hold is shown as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _plain(text: str) -> bool:
    if "\x00" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
