"""Keys of another type than ours: told, but not at every turn of the loop."""

from __future__ import annotations

from time import monotonic
from typing import Final

from redis.exceptions import ResponseError

from taskyard.store import Misplaced
from taskyard.wire.logs import logger

__all__ = ["PAUSE_S", "Complaints"]

log = logger(__name__)

# How long what met such a key waits before it tries again.
PAUSE_S: Final = 1.0
_AGAIN_S: Final = 60.0


class Complaints:
    """Tells of each key once, and again after a minute while it lasts."""

    def __init__(self) -> None:
        self._again_at: dict[str, float] = {}

    def tell(self, error: ResponseError, key: str = "") -> None:
        """Log `error` under the name of its key."""
        key = error.key if isinstance(error, Misplaced) else key
        if self.due(key):
            self._again_at[key] = monotonic() + _AGAIN_S
            log.error("%s", error, extra={"action": "key_misplaced", "key": key})

    def due(self, key: str) -> bool:
        """Whether `key` would be told of now."""
        return monotonic() >= self._again_at.get(key, 0.0)
