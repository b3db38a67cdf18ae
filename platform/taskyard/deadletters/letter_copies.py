"""Copies of the last letters, in case Postgres is restored to a time before they were mirrored.

A restored Postgres has lost what was mirrored since, and the broker has deleted what was
acknowledged. The copies are in a Redis stream of limited length. Its entry ids are times, so a
letter is found by the time of its decision without an index.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from taskyard.errors import UnreadableCopy
from taskyard.settings import Settings
from taskyard.wire.decompression import unpack_body
from taskyard.wire.letter_envelope import ENVELOPE_LIMIT, Letter
from taskyard.wire.redacted_logs import logger

__all__ = ["KeptLetters"]

log = logger(__name__)

# At the default `letters_kept`: at most 640 MB, if every letter is this large.
_LARGEST_BYTES: Final = 65_536
_SLACK_MS: Final = 5_000
_CHUNK: Final = 200
_LOOKED_AT: Final = 20_000


class KeptLetters:
    """Copies of the last dead letters, in the Redis stream `<namespace>:letters:kept`."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._limit = settings.letters_kept
        self._key = f"{settings.namespace}:letters:kept"

    def keep(self, letter: Letter) -> None:
        """Store a copy of `letter`.

        A failure is only logged, since the dead letter itself is published.
        """
        body = zlib.compress(letter.encode(), level=1)
        if self._limit == 0 or len(body) > _LARGEST_BYTES:
            return
        fields: dict[Any, Any] = {"id": letter.letter_id, "letter": body}
        try:
            self._client.xadd(self._key, fields, maxlen=self._limit, approximate=True)
        except RedisError as error:
            log.warning(
                "Redis stored no copy of dead letter %s: %s. The dead letter itself is published",
                letter.letter_id,
                error,
                extra={"action": "letter_not_kept", "letter": letter.letter_id},
            )

    def find(self, letter: str, decided_us: int) -> Letter | None:
        """Return the copy of a dead letter decided at that time, None without a copy.

        Raises `UnreadableCopy` if the copy is damaged.
        """
        start = f"{max(decided_us // 1000 - _SLACK_MS, 0)}-0"
        for _ in range(_LOOKED_AT // _CHUNK):
            entries: Any = self._client.xrange(self._key, start, "+", count=_CHUNK)
            for _, fields in entries:
                if fields.get(b"id") == letter.encode():
                    return _parse(letter, fields)
            if len(entries) < _CHUNK:
                return None
            start = f"({entries[-1][0].decode()}"
        return None


def _parse(letter: str, fields: dict[bytes, bytes]) -> Letter:
    try:
        return Letter.parse(unpack_body(fields[b"letter"], "zlib", ENVELOPE_LIMIT))
    except (KeyError, ValueError) as error:
        raise UnreadableCopy(f"letter {letter}", error) from error
