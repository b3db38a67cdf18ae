"""Pack values that JSON, or Postgres' JSON, cannot hold, without loss.

A packed value is plain JSON. A value without a JSON form becomes a mapping with one key that starts
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

# JSON parsers of brokers and stores allow 200 levels; the message around the value needs some.
_DEEPEST: Final = 100
# A value that contains itself twice would otherwise double with each level.
_MOST_NODES: Final = 100_000
_LONGEST_REPR: Final = 2_000


def pack(value: Any) -> Any:
    """Return `value` as plain JSON for `unpack`; a value of an unknown kind is kept as its repr.

    Values nested over 100 levels, or beyond 100,000 values, are replaced by a note.
    """
    return _Packer().pack(value, 0)


class _Packer:
    """One packing, with its budget of values."""

    def __init__(self) -> None:
        self._left = _MOST_NODES

    def pack(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one kind of value a line
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            return {"$repr": "(nested too deep)" if depth > _DEEPEST else "(too many values)"}
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else {"$float": repr(value)}
            case str():
                return value if _plain(value) else {"$text": _b64(_bytes_of(value))}
            case bytes() | bytearray() | memoryview():
                return {"$bytes": _b64(bytes(value))}
            case list() | tuple():
                return [self.pack(item, depth + 1) for item in value]
            case dict():
                return self._mapping(value, depth)
            case datetime():
                return {"$datetime": value.isoformat()}
            case Decimal():
                return {"$decimal": str(value)}
            case _:
                return {"$repr": _said(value)}

    def _mapping(self, value: dict[Any, Any], depth: int) -> Any:
        names = all(isinstance(key, str) and _plain(key) for key in value)
        if names and not any(key.startswith("$") for key in value):
            return {key: self.pack(item, depth + 1) for key, item in value.items()}
        pairs = value.items()
        return {"$map": [[self.pack(k, depth + 1), self.pack(v, depth + 1)] for k, v in pairs]}


def _said(value: Any) -> str:
    try:
        return clean_text(repr(value))[:_LONGEST_REPR]
    except BaseException as error:  # noqa: BLE001 - an unknown class's __repr__ may raise anything
        return f"({type(value).__name__} whose repr raises {type(error).__name__})"


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def unpack(value: Any) -> Any:
    """Return the value that `pack` packed."""
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
    """Return text for people; characters that UTF-8 or Postgres cannot store are escaped."""
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
