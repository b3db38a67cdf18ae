"""Compressed bodies are unpacked as kombu does it, and never beyond the limit."""

from __future__ import annotations

import bz2
import lzma
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
from backports import zstd
from kombu import compression

from taskyard.wire.decompression import CompressionFault, UnpacksTooLarge, knows, unpack_body

MIB = 1024 * 1024
PLATFORM = Path(__file__).parents[2] / "platform"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "gzip": zlib.compress,
    "application/x-gzip": zlib.compress,
    "bzip2": bz2.compress,
    "bzip": bz2.compress,
    "application/x-bz2": bz2.compress,
    "lzma": lzma.compress,
    "xz": lzma.compress,
    "application/x-lzma": lzma.compress,
    "brotli": brotli.compress,
    "application/x-brotli": brotli.compress,
    "zstd": zstd.compress,
    "zstandard": zstd.compress,
    "application/zstd": zstd.compress,
}
KINDS = ("zlib", "bzip2", "lzma", "brotli", "zstd")
BODY = b'[["a job", {"n": 1}], {}, {}]' * 999


def test_every_compression_of_kombu_is_known_under_every_name() -> None:
    names = {*compression.encoders(), *compression._aliases}
    assert names == set(PACKED)
    assert all(knows(name) for name in names)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("body", [b"", b"x", BODY])
def test_a_body_comes_out_as_from_kombu(name: str, body: bytes) -> None:
    packed = PACKED[name](body)
    assert unpack_body(packed, name) == compression.decompress(packed, name) == body


@pytest.mark.parametrize("name", KINDS)
def test_the_limit_is_the_last_size_that_passes(name: str) -> None:
    packed = PACKED[name](BODY)
    assert unpack_body(packed, name, len(BODY)) == BODY
    with pytest.raises(UnpacksTooLarge) as refused:
        unpack_body(packed, name, len(BODY) - 1)
    assert str(refused.value) == (
        f"its {len(packed):,} bytes ({name}) decompress to more than {len(BODY) - 1:,} bytes, "
        "which is the limit"
    )


@pytest.mark.parametrize("name", ["bzip2", "lzma", "zstd"])
def test_several_streams_are_one_body_and_one_size(name: str) -> None:
    packed = PACKED[name](BODY) * 3
    assert unpack_body(packed, name) == compression.decompress(packed, name) == BODY * 3
    with pytest.raises(UnpacksTooLarge):
        unpack_body(packed, name, 3 * len(BODY) - 1)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("damage", [b"junk", PACKED], ids=["junk", "cut"])
def test_a_body_that_is_not_what_it_says_is_named_as_that(name: str, damage: object) -> None:
    broken = damage if isinstance(damage, bytes) else PACKED[name](BODY)[:-3]
    with pytest.raises(CompressionFault, match=f"not complete, valid {name}"):
        unpack_body(broken, name)


def test_an_unknown_compression_is_named_with_the_known_ones() -> None:
    with pytest.raises(CompressionFault, match="'snappy' is not known; known: application/x-gzip"):
        unpack_body(b"", "snappy")


# 256 MiB of zeros, packed in the time of 16: as many streams, or by the fastest way there is.
ZEROS = {
    "zlib": lambda: zlib.compress(bytes(256 * MIB), level=1),
    "bzip2": lambda: bz2.compress(bytes(16 * MIB)) * 16,
    "lzma": lambda: lzma.compress(bytes(16 * MIB), preset=0) * 16,
    "brotli": lambda: brotli.compress(bytes(256 * MIB), quality=1),
    "zstd": lambda: zstd.compress(bytes(256 * MIB), level=1),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_would_fill_the_memory_is_refused_with_little_of_it(name: str) -> None:
    source = f"""
import resource, sys
sys.path.insert(0, {str(PLATFORM)!r})
from taskyard.wire.decompression import UnpacksTooLarge, unpack_body
packed = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack_body(packed, {name!r})
except UnpacksTooLarge:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    packed = ZEROS[name]()
    assert len(packed) < 2 * MIB
    argv = [sys.executable, "-c", source]
    done = subprocess.run(argv, input=packed, capture_output=True, timeout=60, check=True)
    # What is unpacked up to the limit, its copy, and the library's own.
    assert int(done.stdout) < 64 * 1024, done.stderr.decode()


class OlderBrotli:
    """brotli 1.1 as it is: no limit, and no word of whether it takes more."""

    error = brotli.error

    class Decompressor:
        def __init__(self) -> None:
            self._stream = brotli.Decompressor()
            self.is_finished = self._stream.is_finished

        def process(self, data: bytes) -> bytes:
            return bytes(self._stream.process(data))


def test_an_older_brotli_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", OlderBrotli)  # type: ignore[arg-type] # stands for it
    packed = brotli.compress(BODY)
    assert unpack_body(packed, "brotli", len(BODY)) == BODY
    with pytest.raises(UnpacksTooLarge):
        unpack_body(packed, "brotli", len(BODY) - 1)
    with pytest.raises(CompressionFault, match="not complete, valid brotli"):
        unpack_body(packed[:-3], "brotli")
    zeros = ZEROS["brotli"]()
    tracemalloc.start()
    with pytest.raises(UnpacksTooLarge):
        unpack_body(zeros, "brotli")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MIB
