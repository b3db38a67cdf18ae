"""Keep the original bytes of message bodies, also of compressed ones.

kombu decompresses a body when it creates the message, without a limit, and drops the original. Dead
letters and retries carry the original bytes. A body of 200 kB that decompresses to 200 MB must not
reach a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kombu import Message
from kombu.compression import decompress

from taskyard.wire.decoded_body import bytes_of
from taskyard.wire.decompression import CompressionFault, UnpacksTooLarge, knows, unpack_body

__all__ = ["body_as_it_came", "keep_packed"]

# Headers -> how many bytes the decompressed body may have, None for no limit.
LimitOf = Callable[[Mapping[str, Any]], int | None]


def keep_packed(channel: Any, limit_of: LimitOf | None = None) -> None:
    """Make kombu's `channel` create messages that keep the original bytes of their body.

    The broker may be of any kind. Without `limit_of` no body is decompressed. A body over its
    limit, or one that cannot be decompressed, is an error of the message, like any body that
    cannot be decoded: the consumer's `on_decode_error` gets it, with the original body.
    """
    if not issubclass(channel.Message, _Packed):
        own = {"limit_of": None if limit_of is None else staticmethod(limit_of)}
        channel.Message = type(channel.Message.__name__, (channel.Message, _Packed), own)


def body_as_it_came(message: Any) -> bytes:
    """Return the bytes of a message's body as the broker had them, compressed if they were."""
    came = getattr(message, "came", None)
    return bytes_of(message.body) if came is None else bytes(came)


class _Packed(Message):  # type: ignore[misc]
    """A base for kombu's message classes that does not decompress the body."""

    limit_of: LimitOf | None
    came: bytes | None = None

    def __init__(self, body: Any = None, *, headers: Any = None, **facts: Any) -> None:
        name = (headers or {}).get("compression")
        if not name:
            super().__init__(body=body, headers=headers, **facts)
            return
        self.came = came = bytes_of(body)
        try:
            body = self._unpacked(came, name, headers)
        except CompressionFault as fault:
            self.errors, body = [(type(fault), _bare(fault), None)], came
        others = {key: value for key, value in headers.items() if key != "compression"}
        super().__init__(body=body, headers=others, **facts)
        self.headers = headers

    def _unpacked(self, body: bytes, name: Any, headers: Mapping[str, Any]) -> bytes:
        if self.limit_of is None:
            return body
        limit = self.limit_of(headers)
        if limit is not None and knows(name):
            return unpack_body(body, name, limit)
        found = _by_kombu(body, name)
        if limit is not None and len(found) > limit:
            raise UnpacksTooLarge(len(body), name, limit)
        return found


def _bare(error: Exception) -> Exception:
    """Return a decompression error without its frames.

    The frames would keep the decompressed data in memory.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _by_kombu(body: bytes, name: Any) -> bytes:
    """Decompress a body without a limit.

    Taskyard uses this for tasks that it only observes, and for an app's own compression.
    """
    try:
        return bytes_of(decompress(body, name))
    except Exception as error:
        raise CompressionFault(
            f"the body cannot be decompressed with {name!r:.60}: {type(error).__name__}: {error}"
        ) from error
