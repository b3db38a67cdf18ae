"""The mark that Redis and Postgres both hold: a token, and a count that grows while relays run."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["BEAT_S", "Mark", "disagreement"]

BEAT_S: Final = 5.0
"""Seconds between two beats: a restore that goes back less than about two of them is not seen."""

# The writer that dies between the two stores leaves Redis one ahead; a server that loses its last
# second leaves either one behind. Both are ordinary, and the records' scripts settle them.
_TOLERATED: Final = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """`token` changes when an operator accepts a restore, `beat` every `BEAT_S`."""

    token: uuid.UUID
    beat: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read what `encode` wrote; raises ValueError."""
        token, _, beat = raw.decode().partition(" ")
        return cls(uuid.UUID(token), int(beat))

    def encode(self) -> str:
        """The mark as Redis holds it."""
        return f"{self.token} {self.beat}"


def disagreement(postgres: Mark | None, redis: Mark | None) -> str | None:
    """Why nothing may be published that Postgres asks for; None while both agree."""
    if redis is None:
        why = "Redis holds no mark, Postgres does: Redis was flushed, replaced or restored"
        return None if postgres is None else why
    if postgres is None:
        why = "Postgres holds no mark, Redis does: Postgres was replaced, or restored from before"
        # A first start that ended between the two stores leaves a first beat behind.
        return None if redis.beat <= _TOLERATED else why
    return _compare(postgres, redis)


def _compare(postgres: Mark, redis: Mark) -> str | None:
    if postgres.token != redis.token:
        return "the marks of Redis and Postgres are of different times or different yards"
    ahead = redis.beat - postgres.beat
    if abs(ahead) <= _TOLERATED:
        return None
    older, newer = ("Postgres", "Redis") if ahead > 0 else ("Redis", "Postgres")
    at_least_s = (abs(ahead) - _TOLERATED) * BEAT_S
    return f"{older} is at least {at_least_s:g} s of relay time behind {newer}: it was restored"
