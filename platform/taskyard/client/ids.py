"""Random job ids, made from the system's randomness many at a time."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Final

__all__ = ["new_job_id"]

_BATCH: Final = 256
_SIZE: Final = 16


class _Source:
    """A stock of random bytes; a forked process starts with an empty one."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._stock = b""

    def take(self) -> bytes:
        with self._lock:
            if not self._stock:
                self._stock = os.urandom(_BATCH * _SIZE)
            taken, self._stock = self._stock[:_SIZE], self._stock[_SIZE:]
        return taken


_source: Final = _Source()


def new_job_id() -> str:
    """A random UUID (version 4)."""
    return str(uuid.UUID(bytes=_source.take(), version=4))
