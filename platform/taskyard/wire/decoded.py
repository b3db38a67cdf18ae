"""A message's body as text that still knows the bytes it came in."""

from __future__ import annotations

from typing import Any, Self

__all__ = ["Decoded", "bytes_of"]


class Decoded(str):
    """Text for whoever reads it; `came` is for a letter or a retry, which are byte-exact.

    Encoding it again would not do: UTF-16 alone has three forms of one text.
    """

    came: bytes

    @classmethod
    def of(cls, came: bytes, encoding: str) -> Self:
        """Decode; raises `UnicodeError`, or `LookupError` for an unknown encoding."""
        made = cls(came.decode(encoding))
        made.came = came
        return made

    def __reduce__(self) -> Any:
        """Other processes get the plain text."""
        return str, (str(self),)


def bytes_of(body: Any) -> bytes:
    """A message's body in the bytes that it came in."""
    if isinstance(body, Decoded):
        return body.came
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body or b"")
