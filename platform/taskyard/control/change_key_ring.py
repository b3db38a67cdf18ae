"""Change a key ring's file in one step, so that a reader sees the old ring or the new one."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taskyard.access.key_files import read_ring
from taskyard.access.key_ring import KeyRing
from taskyard.errors import Refused

__all__ = ["change_ring", "write_private"]

_RING_MODE: Final = 0o644


def change_ring(path: Path, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Replace the ring by the result of `change`, one change at a time; return the new ring.

    A missing file is an empty ring. Raises `InvalidSettings` if the file is not a readable ring,
    `Refused` if it cannot be written, and the errors of `change`.
    """
    path = path.expanduser().resolve()  # a link stays a link
    try:
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ring = change(read_ring(path) if path.exists() else KeyRing({}))
            _replace(path, ring.render())
    except OSError as error:
        raise Refused(
            f"the key ring {path} cannot be written: {error.strerror}. "
            "TASKYARD_PUBLIC_KEYS names it"
        ) from error
    return ring


def _replace(path: Path, text: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _RING_MODE
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_private(path: Path, pem: bytes) -> None:
    """Write a private key that only its owner can read.

    Raises `Refused`, also if the file exists.
    """
    path = path.expanduser()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Refused(
            f"the file {path} exists already; a private key never replaces a file. Name another "
            "file, or remove this one"
        ) from None
    except OSError as error:
        raise Refused(f"the private key {path} cannot be written: {error.strerror}") from error
