"""Messages as they came over AMQP, also those whose properties py-amqp cannot read.

RabbitMQ hands on what it was given: a text that is not UTF-8, a date that no calendar has, a table
nested without end. py-amqp raises at the header frame, which ends the worker, and every next one
that is sent the message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from amqp.exceptions import FrameSyntaxError
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic

from taskyard.wire.decoded import Decoded
from taskyard.wire.unread import UNREAD

__all__ = ["read_any_header"]

Frame = tuple[int, int, bytes]

_HEADER_FRAME: Final = 2
# Class, weight and size of the body come first; what follows are the properties.
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
    """Have kombu's `connection`, to a broker of any kind, survive such messages from now on.

    What cannot be read arrives as a message of bytes without a task, whose header `UNREAD` holds
    the properties as they came. Bodies are decoded as ever, but know their bytes.
    """
    if connection.transport.driver_type == "amqp":
        options = connection.transport_options or {}
        connection.transport_options = {"frame_handler": _reading_any, **options}


def _reading_any(connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], Any]:
    """py-amqp's frame handler, which is asked again where the properties are at fault."""

    def decoding(channel: int, signature: Any, arguments: Any, content: Any) -> Any:
        taken = (connection.channels or {}).get(channel)
        if taken is not None and content is not None:
            # py-amqp's own way drops the bytes: no letter and no retry would be what came.
            taken.auto_decode = False
            content.body = _decoded(content)
        return callback(channel, signature, arguments, content)

    plain = frame_handler(connection, decoding)

    def on_frame(frame: Frame) -> Any:
        try:
            return plain(frame)
        except _UNREADABLE:
            kind, channel, header = frame
            # Where the properties can be read the error is another's: a consumer was called.
            if kind != _HEADER_FRAME or _readable(header):
                raise
        return plain((kind, channel, _as_bytes(header)))

    return on_frame


def _decoded(content: Any) -> Any:
    """The body as py-amqp would have it: bytes where its encoding is unknown or not true."""
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
    """The same header with properties of our own, which hold those that came."""
    came, name = bytes(header[_FIXED:]), UNREAD.encode()
    table = struct.pack(">B", len(name)) + name + b"x" + struct.pack(">I", len(came)) + came
    properties = struct.pack(">H", 0xA000) + _short(b"application/octet-stream")
    return bytes(header[:_FIXED]) + properties + struct.pack(">I", len(table)) + table


def _short(text: bytes) -> bytes:
    return struct.pack(">B", len(text)) + text
