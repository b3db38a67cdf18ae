"""Accept AMQP messages whose properties py-amqp cannot decode.

RabbitMQ delivers properties as a publisher wrote them: text that is not UTF-8, an impossible date,
a table that is nested without end. py-amqp raises an error while it reads the header. That error
ends the worker, and then each next worker that gets the message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from amqp.exceptions import FrameSyntaxError
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic

from taskyard.wire.decoded_body import Decoded
from taskyard.wire.undecoded_mark import UNREAD

__all__ = ["read_any_header"]

Frame = tuple[int, int, bytes]

_HEADER_FRAME: Final = 2
# Class, weight and size of the body come first; the properties follow.
_FIXED: Final = 12
_UNREADABLE: Final = (
    ValueError,
    ArithmeticError,
    OSError,
    RecursionError,
    FrameSyntaxError,
    IndexError,
    struct.error,
)


def read_any_header(connection: Any) -> None:
    """Make kombu's `connection` survive messages with properties that py-amqp cannot decode.

    A message that cannot be decoded arrives as bytes without a task; its header `UNREAD` holds
    the original properties. Bodies are decoded as usual, but keep their bytes. The broker may
    be of any kind.
    """
    if connection.transport.driver_type == "amqp":
        options = connection.transport_options or {}
        connection.transport_options = {"frame_handler": _reading_any, **options}


def _reading_any(connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], Any]:
    """Return py-amqp's frame handler, changed to try again without properties it cannot decode."""

    def decoding(channel: int, signature: Any, arguments: Any, content: Any) -> Any:
        taken = (connection.channels or {}).get(channel)
        if taken is not None and content is not None:
            # py-amqp's own code drops the bytes, so letters and retries could not be byte-exact.
            taken.auto_decode = False
            content.body = _decoded(content)
        return callback(channel, signature, arguments, content)

    plain = frame_handler(connection, decoding)

    def on_frame(frame: Frame) -> Any:
        try:
            return plain(frame)
        except _UNREADABLE:
            kind, channel, header = frame
            # If the properties can be decoded, the error is a consumer's.
            if kind != _HEADER_FRAME or _readable(header):
                raise
        return plain((kind, channel, _as_bytes(header)))

    return on_frame


def _decoded(content: Any) -> Any:
    """Return the body as py-amqp decodes it, or bytes if its encoding is unknown or wrong."""
    encoding = content.properties.get("content_encoding")
    if not encoding or not isinstance(content.body, bytes | bytearray | memoryview):
        return content.body
    try:
        return Decoded.of(bytes(content.body), encoding)
    except (UnicodeError, LookupError, ValueError):
        return content.body


def _readable(header: bytes) -> bool:
    try:
        decode_properties_basic(header, _FIXED)
    except _UNREADABLE:
        return False
    return True


def _as_bytes(header: bytes) -> bytes:
    """Return a message header that py-amqp can decode and that holds the original properties."""
    came, name = bytes(header[_FIXED:]), UNREAD.encode()
    table = struct.pack(">B", len(name)) + name + b"x" + struct.pack(">I", len(came)) + came
    properties = struct.pack(">H", 0xA000) + _short(b"application/octet-stream")
    return bytes(header[:_FIXED]) + properties + struct.pack(">I", len(table)) + table


def _short(text: bytes) -> bytes:
    return struct.pack(">B", len(text)) + text
