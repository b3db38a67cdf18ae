"""A message's body as text that also keeps its original bytes."""

from __future__ import annotations

from typing import Any, Self

__all__ = ["Decoded", "bytes_of"]


class Decoded(str):
    """The text of a body.

    `came` has the original bytes, since a dead letter and a retry must be byte-exact. Encoding the
    text again may give other bytes: UTF-16 alone has three forms of one text.
    """

    came: bytes

    @classmethod
    def of(cls, came: bytes, encoding: str) -> Self:
        """Decode bytes; raises `UnicodeError`, or `LookupError` for an unknown encoding."""
        made = cls(came.decode(encoding))
        made.came = came
        return made

    def __reduce__(self) -> Any:
        """Pickle this object as an ordinary `str`: other processes get the text without `came`."""
        return str, (str(self),)


def bytes_of(body: Any) -> bytes:
    """Return a message's body in its original bytes."""
    if isinstance(body, Decoded):
        return body.came
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body or b"")
