"""Under which prefixes letters are at a Redis broker: our own, and those of installed apps.

An app whose `broker_transport_options` have a `global_keyprefix` may be confined to it, so its
letters are there too. The mirror learns of it here: it knows nothing of an app's configuration.
"""

from __future__ import annotations

from typing import Any

import redis

__all__ = ["LetterPrefixes"]


class LetterPrefixes:
    """The set `<namespace>:letters:prefixes`, in the records' Redis."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._key = f"{namespace}:letters:prefixes"

    def note(self, prefix: str) -> None:
        """Remember `prefix`, before the first letter is under it; raises redis-py's errors."""
        self._client.sadd(self._key, prefix)

    def all(self) -> list[str]:
        """Every prefix that was noted; raises redis-py's errors."""
        found: Any = self._client.smembers(self._key)
        return sorted(prefix.decode() for prefix in found)
