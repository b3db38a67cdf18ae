"""The two files of signing: the key ring that workers read, and an operator's private key."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskyard.access.key_ring import KeyRing, key_id_of
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import InvalidSettings

# `cryptography` is in the extra `signing`, which may be missing: functions import it when they run.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["LOOK_EVERY_S", "RingFile", "SigningKey", "read_ring", "read_signing_key"]

# A retired key is valid for at most this time after its file was changed.
LOOK_EVERY_S: Final = 5.0


class SigningKey:
    """An Ed25519 private key; neither its text nor its repr shows it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key: bytes = private.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def sign(self, data: bytes) -> bytes:
        """Return the signature of 64 bytes."""
        return self._private.sign(data)


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key from its PEM file.

    Raises `InvalidSettings` if others can read the file.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - extra `signing`
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - extra `signing`
        load_pem_private_key,
    )

    try:
        with path.open("rb") as file:
            _refuse_readable(path, os.fstat(file.fileno()))
            private = load_pem_private_key(file.read(), password=None)
    except OSError as error:
        raise InvalidSettings(
            f"the signing key {path} cannot be read ({error.strerror}). TASKYARD_SIGNING_KEY names "
            "it; create one with: taskyard keys create"
        ) from error
    except (ValueError, TypeError) as error:
        # The library's text may quote the file.
        raise InvalidSettings(
            f"the signing key {path} is not a private key in PEM without a password; create one "
            "with: taskyard keys create"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidSettings(
            f"the signing key {path} must be an Ed25519 key, got another kind; "
            "create one with: taskyard keys create"
        )
    return SigningKey(private)


def _refuse_readable(path: Path, found: os.stat_result) -> None:
    """Refuse a file that others can read.

    A group may read another owner's, as mounted secrets need.
    """
    own = found.st_uid == os.geteuid()
    if found.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if own else 0)):
        raise InvalidSettings(
            f"the signing key {path} can be read by other users of this machine. Run: "
            f"chmod 600 {path}"
        )


def read_ring(path: Path) -> KeyRing:
    """Read a key ring; raises `InvalidSettings` if it is missing, wrong or writable by anyone."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise InvalidSettings(
                    f"the key ring {path} can be changed by every user of this machine. Run: "
                    f"chmod o-w {path}"
                )
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"the key ring {path} cannot be read ({error}). TASKYARD_PUBLIC_KEYS names it"
        ) from error
    return KeyRing.parse(text, str(path))


class RingFile:
    """A key ring's file.

    The file is checked every `LOOK_EVERY_S`, and read again when it has changed.
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._looked_s: float | None = None
        self._mark: tuple[int, ...] | None = None
        self._ring: KeyRing | None = None
        self._fault: str | None = None

    def ring(self) -> KeyRing:
        """Return the ring in the file; raises `InvalidSettings` while the file cannot be read.

        The last ring that could be read is not used instead: it may contain a key that was retired
        since.
        """
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._looked_s is None or now_s - self._looked_s >= LOOK_EVERY_S:
                self._look()
                self._looked_s = now_s
            if self._ring is None:
                raise InvalidSettings(self._fault or f"the key ring {self._path} was not read")
            return self._ring

    def _look(self) -> None:
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
        except OSError:
            mark = None
        if mark is not None and mark == self._mark and self._ring is not None:
            return
        self._mark = mark
        try:
            self._ring, self._fault = read_ring(self._path), None
        except InvalidSettings as error:
            self._ring, self._fault = None, str(error)
