"""Owners: the consumers that hold messages, as each describes itself with every heartbeat.

A Redis hash has one field for each owner: the server's time of the heartbeat, then the description.
Before a sweep removes an owner, it knows from the description where to search for the owner's
unacknowledged messages. An operator sees which queues a dead owner read.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import redis

from taskyard.clock import us_of
from taskyard.store import SIGNED_OFF, read_beats

__all__ = [
    "HEARTBEAT_S",
    "OWNER_TTL_S",
    "Owner",
    "Swept",
    "describe",
    "list_of",
    "owner_of",
    "read_owners",
]

HEARTBEAT_S: Final = 2.0
OWNER_TTL_S: Final = 10.0
"""How long an owner may be silent before it counts as dead."""


class Swept(NamedTuple):
    """A message that a sweep must return to its queue.

    `description` is that of the message's owner; it is empty if the owner is unknown.
    """

    tag: str
    stored: bytes
    description: bytes


def describe(
    unacked: str, index: str, separator: str, steps: Sequence[int], queues: Sequence[str]
) -> str:
    """Return the text that a heartbeat writes about its owner.

    The text has the full names of the keys with the owner's messages, and the lists that it
    reads.
    """
    facts = {"unacked": unacked, "index": index, "sep": separator, "steps": list(steps)}
    return json.dumps({**facts, "queues": list(queues)})


def list_of(description: bytes, queue: str, priority: int) -> str | None:
    """Return the list that this owner reads for `queue` and `priority`.

    None if the owner's description does not name one.
    """
    try:
        document = json.loads(description)
        steps, separator = document["steps"], document["sep"]
        step = steps[bisect(steps, priority) - 1]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return f"{queue}{separator}{step}" if step else queue


def owner_of(tag: str) -> str:
    """Return the owner that a delivery tag names.

    The text is empty for a tag of kombu's own transport.
    """
    owner, _, serial = tag.rpartition(":")
    return owner if serial.isdecimal() else ""


@dataclass(frozen=True, slots=True)
class Owner:
    """One consumer that holds messages; `seen_us` is 0 if it signed off."""

    name: str
    seen_us: int
    unacked: str
    index: str
    queues: tuple[str, ...]

    @classmethod
    def read(cls, name: str, seen_us: int, description: str) -> Self | None:
        """Parse a heartbeat; return None if it is of an unknown version."""
        try:
            document: dict[str, Any] = json.loads(description)
            keys = str(document["unacked"]), str(document["index"])
            return cls(name, seen_us, *keys, tuple(map(str, document["queues"])))
        except (ValueError, KeyError, TypeError):
            return None

    def alive(self, now_us: int) -> bool:
        """Return whether the owner's last heartbeat is at most `OWNER_TTL_S` old."""
        return now_us - self.seen_us <= us_of(OWNER_TTL_S)

    @property
    def signed_off(self) -> bool:
        """Whether the owner ended in order and said so; one that was killed could not."""
        return self.seen_us == SIGNED_OFF

    @property
    def process(self) -> str:
        """Return the owner's host and process id, for people."""
        return self.name.rpartition(".")[0]


def read_owners(client: redis.Redis, key: str) -> tuple[int, list[Owner]]:
    """Return the server's time in microseconds and all owners in the hash `key`.

    Raises redis-py's errors.
    """
    now_us, beats = read_beats(client, key)
    owners = [Owner.read(name, us, description) for name, (us, description) in beats.items()]
    return now_us, [owner for owner in owners if owner is not None]
