"""Decompress bodies up to a limit: a body of 200 kB may decompress to 200 MB.

The names of compressions are kombu's. Kombu's own code has no limit and follows a message's header
`compression`. A compression that needs a library beyond Python's own works if this library is
installed, as in kombu.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

__all__ = ["UNPACKED_LIMIT", "CompressionFault", "UnpacksTooLarge", "knows", "unpack_body"]

# As much as RabbitMQ 4 allows for one uncompressed message.
UNPACKED_LIMIT: Final = 16 * 1024 * 1024
# Twice what xz -9 needs for its dictionary.
_LZMA_MEMORY: Final = 128 * 1024 * 1024
# Each stream of bz2, xz and zstd begins with these bytes, and nothing else does.
_MAGIC: Final = 3
# No second copy of the decompressed data is held.
_PIECE: Final = 1024 * 1024


class CompressionFault(ValueError):
    """A body that cannot be decompressed with its compression."""


class UnpacksTooLarge(CompressionFault):
    """A body that would be larger than the limit; decompression stopped at the limit."""

    def __init__(self, packed: int, name: str, limit: int) -> None:
        self.packed, self.name, self.limit = packed, name, limit
        super().__init__(
            f"its {packed:,} bytes ({name}) decompress to more than {limit:,} bytes, which is the "
            f"limit"
        )


class _Stream(Protocol):
    """One compressed stream, as the objects of bz2, lzma and zstd in Python's library."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes; the rest of `data` is kept for the next call."""
        ...


def knows(name: object) -> bool:
    """Return whether `name` is a compression of kombu that can be stopped at a limit."""
    return isinstance(name, str) and name in _STREAMS


def unpack_body(body: bytes, name: str, limit: int = UNPACKED_LIMIT) -> bytes:
    """Return `body`, decompressed from the compression that kombu calls `name`.

    Raises `UnpacksTooLarge` as soon as the result grows over `limit` bytes, `CompressionFault` for
    an unknown name or a body of another kind.
    """
    find = _STREAMS.get(name)
    if find is None:
        known = ", ".join(_STREAMS)
        raise CompressionFault(f"compression {name!r:.60} is not known; known: {known}")
    try:
        open_stream, own_error = find()
    except ImportError as error:
        raise CompressionFault(f"compression {name!r} needs a library: {error}") from error
    try:
        found = _unpack(open_stream, body, limit)
    except (own_error, ValueError, OSError, EOFError) as error:
        raise CompressionFault(f"the body is not complete, valid {name}: {error}") from error
    if len(found) > limit:
        raise UnpacksTooLarge(len(body), name, limit)
    return bytes(found)


def _unpack(open_stream: Callable[[], _Stream], body: bytes, limit: int) -> bytearray:
    """Decompress all streams of `body`, and stop one byte after `limit`."""
    found, rest = bytearray(), body
    while True:
        stream = open_stream()
        found += stream.decompress(rest, min(_PIECE, limit + 1 - len(found)))
        while len(found) <= limit and not stream.eof and not stream.needs_input:
            found += stream.decompress(b"", min(_PIECE, limit + 1 - len(found)))
        if len(found) > limit:
            return found
        if not stream.eof:
            raise EOFError("it ends too early")
        rest = stream.unused_data
        # Data after the stream that is not another stream is ignored, as by Python's own functions.
        if not rest or rest[:_MAGIC] != body[:_MAGIC]:
            return found


class _Zlib:
    """A zlib stream, with the unread rest of its input, which zlib leaves to the caller."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    # zlib.decompress reads only the first stream.
    unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(data or self._stream.unconsumed_tail, max_length)


class _Brotli:
    """A stream of brotli."""

    unused_data = b""

    def __init__(self, library: Any) -> None:
        self._stream = library.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def needs_input(self) -> bool:
        return bool(self._stream.can_accept_more_data())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._stream.process(data, output_buffer_limit=max_length))


class _OlderBrotli:
    """A stream of brotli before 1.2, whose output cannot be limited.

    So it gets one byte of input at a time. One byte ends at most one block of the format, of 16
    MiB.
    """

    unused_data = b""

    def __init__(self, library: Any) -> None:
        self._stream = library.Decompressor()
        self._rest = memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def needs_input(self) -> bool:
        return not self._rest

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = bytearray()
        self._rest = memoryview(data) if data else self._rest
        while self._rest and len(found) < max_length:
            found += self._stream.process(bytes(self._rest[:1]))
            self._rest = self._rest[1:]
        return bytes(found)


_Way = tuple[Callable[[], _Stream], type[Exception]]


def _zlib() -> _Way:
    return _Zlib, zlib.error


def _bz2() -> _Way:
    return bz2.BZ2Decompressor, OSError


def _lzma() -> _Way:
    return lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), lzma.LZMAError


def _brotli() -> _Way:
    library = import_module("brotli")
    stops = hasattr(library.Decompressor, "can_accept_more_data")
    kind: Any = _Brotli if stops else _OlderBrotli
    return lambda: kind(library), library.error


def _zstd() -> _Way:
    try:
        library = import_module("compression.zstd")
    except ImportError:
        library = import_module("backports.zstd")
    return library.ZstdDecompressor, library.ZstdError


_STREAMS: Final[dict[str, Callable[[], _Way]]] = {
    "application/x-gzip": _zlib,
    "gzip": _zlib,
    "zlib": _zlib,
    "application/x-bz2": _bz2,
    "bzip2": _bz2,
    "bzip": _bz2,
    "application/x-lzma": _lzma,
    "lzma": _lzma,
    "xz": _lzma,
    "application/x-brotli": _brotli,
    "brotli": _brotli,
    "application/zstd": _zstd,
    "zstd": _zstd,
    "zstandard": _zstd,
}
