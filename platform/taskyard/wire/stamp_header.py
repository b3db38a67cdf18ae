"""The one header that Taskyard adds to a Celery message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from taskyard.wire.lossless_json import clean_text

__all__ = ["HEADER", "LONGEST_ID", "MOST_RETRIES", "SCHEMA", "Stamp", "usable_id"]

HEADER: Final = "taskyard"
SCHEMA: Final = 1
# The ledger's columns hold twice as much, so later counts still fit.
MOST_RETRIES: Final = 2**30
LONGEST_ID: Final = 255
# With such an id, a job's record would be under the key of another job's counter.
_COUNTER: Final = ":deliveries"
# The scripts count in doubles: microseconds are exact below 2^53, which is the year 2255.
_LARGEST: Final = {"epoch": 2**53, "sent_us": 2**53, "generation": 2**30, "seq": MOST_RETRIES}


def usable_id(value: object) -> str | None:
    """Return `value` if it can be a job's id: short text that every store can hold."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID:
        return None
    return value if clean_text(value) == value and not value.endswith(_COUNTER) else None


@dataclass(frozen=True, slots=True)
class Stamp:
    """The position of a message in its job; times are microseconds since 1970.

    `epoch` identifies one life of the job id: an id that is used again gets a new epoch.
    `generation` counts replays and redirects in it, `seq` counts retries. `sent_us` is the time of
    the last publication. `policy` overrides the job type's retry policy. `nesting` counts how often
    the job has replaced itself by another task; Celery's own header carries this number.
    """

    epoch: int
    generation: int = 0
    seq: int = 0
    sent_us: int | None = None
    policy: Mapping[str, object] | None = None
    nesting: int = 0

    @classmethod
    def read(cls, headers: Mapping[str, object]) -> Self | None:
        """Return the stamp in a message's headers, None without one; raises ValueError."""
        raw = headers.get(HEADER)
        if raw is None:
            return None
        if not isinstance(raw, Mapping):
            raise ValueError(f"header {HEADER!r} must be a mapping, got {raw!r:.60}")
        if raw.get("v") != SCHEMA:
            raise ValueError(f"header {HEADER!r} has schema {raw.get('v')!r}, this version reads 1")
        policy = raw.get("policy")
        if policy is not None and not isinstance(policy, Mapping):
            raise ValueError(f"header {HEADER!r}: policy must be a mapping, got {policy!r}")
        sent = raw.get("sent_us")
        return cls(
            epoch=_count(raw, "epoch"),
            generation=_count(raw, "generation"),
            seq=_count(raw, "seq"),
            sent_us=None if sent is None else _count(raw, "sent_us"),
            policy=policy,
        )

    def header(self) -> dict[str, object]:
        """Return the header's value."""
        value: dict[str, object] = {
            "v": SCHEMA,
            "epoch": self.epoch,
            "generation": self.generation,
            "seq": self.seq,
        }
        if self.sent_us is not None:
            value["sent_us"] = self.sent_us
        if self.policy is not None:
            value["policy"] = dict(self.policy)
        return value

    def moved(self, *, generation: int | None = None, seq: int, sent_us: int) -> Self:
        """Return the stamp of a later publication of the same job."""
        new = self.generation if generation is None else generation
        return replace(self, generation=new, seq=seq, sent_us=sent_us)


def _count(raw: Mapping[object, object], key: str) -> int:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST[key]:
        raise ValueError(
            f"header {HEADER!r}: {key} must be a whole number, 0 or more, got {value!r:.40}"
        )
    return value
