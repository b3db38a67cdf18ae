"""Create random ids from the system's randomness, many at a time."""

from __future__ import annotations

import os
import threading
from typing import Final

__all__ = ["new_call_id", "new_job_id"]

_BATCH: Final = 256
_SIZE: Final = 16
# RFC 4122: the two highest bits of this digit are 10.
_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class _Source:
    """A stock of random digits for ids; a forked process starts with an empty one."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._stock: list[str] = []

    def take(self) -> str:
        with self._lock:
            if not self._stock:
                digits = os.urandom(_BATCH * _SIZE).hex()
                width = 2 * _SIZE
                self._stock = [digits[at : at + width] for at in range(0, len(digits), width)]
            return self._stock.pop()


_source: Final = _Source()


def new_job_id() -> str:
    """Return a random job id: a UUID, version 4."""
    digits = _source.take()
    variant = _VARIANTS[digits[16]]
    head = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
    return f"{head}{variant}{digits[17:20]}-{digits[20:]}"


def new_call_id() -> str:
    """Return an id of 12 random digits for one call of a client.

    It distinguishes calls that use the same idempotency key.
    """
    return _source.take()[:12]
