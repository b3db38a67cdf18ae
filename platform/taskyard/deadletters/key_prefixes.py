"""The key prefixes of dead letters at a Redis broker: Taskyard's own, and those of installed apps.

An app whose `broker_transport_options` have a `global_keyprefix` may have rights to these keys
only, so the keys of its dead letters have the prefix too. The mirror does not know an app's
configuration, so it reads the prefixes from this set.
"""

from __future__ import annotations

from typing import Any

import redis

__all__ = ["LetterPrefixes"]


class LetterPrefixes:
    """The Redis set `<namespace>:letters:prefixes` of the key prefixes of dead letters."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._key = f"{namespace}:letters:prefixes"

    def note(self, prefix: str) -> None:
        """Add `prefix` before a dead letter is published under it; raises redis-py's errors."""
        self._client.sadd(self._key, prefix)

    def all(self) -> list[str]:
        """Return every prefix that was added; raises redis-py's errors."""
        found: Any = self._client.smembers(self._key)
        return sorted(prefix.decode() for prefix in found)
