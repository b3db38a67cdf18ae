"""The workers of a namespace, by the heartbeat that each worker writes every few seconds.

A job's record names the worker that runs the job. The heartbeat shows whether that worker still
lives, with every broker.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

import redis

from taskyard.clock import us_of
from taskyard.store import beat, read_beats

__all__ = ["BEAT_S", "FORGOTTEN_S", "GONE_S", "Fleet", "Member", "left_by_dead", "lives"]

BEAT_S: Final = 5.0
GONE_S: Final = 15.0
"""How long a worker may be silent before it counts as dead."""
FORGOTTEN_S: Final = 3600.0
"""How long a dead worker that was never replaced is shown, if no job waits for it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One worker process: its Celery name, and how its broker returns the messages that it holds.

    At a Redis broker, `unacked` and `index` are the full names of the keys with its unacknowledged
    messages; they are empty for RabbitMQ. `own`: the worker uses Taskyard's transport. With kombu's
    transport no key names the worker, so `held` lists the tags of its messages. `returns`: the
    worker returns the messages of dead workers with kombu's transport.
    """

    worker: str
    queues: tuple[str, ...] = ()
    unacked: str = ""
    index: str = ""
    visibility_timeout_s: float = 0.0
    own: bool = False
    returns: bool = False
    held: tuple[str, ...] = ()
    instance: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_us: int = 0
    seen_us: int = 0

    @classmethod
    def read(cls, instance: str, seen_us: int, description: str) -> Self | None:
        """Return the worker that a heartbeat describes; None if its version is unknown."""
        try:
            document: dict[str, Any] = json.loads(description)
            return cls(
                worker=str(document["worker"]),
                queues=tuple(map(str, document["queues"])),
                unacked=str(document["unacked"]),
                index=str(document["index"]),
                visibility_timeout_s=float(document["visibility_timeout_s"]),
                own=bool(document["own"]),
                returns=bool(document["returns"]),
                held=tuple(map(str, document["held"])),
                instance=instance,
                started_us=int(document["started_us"]),
                seen_us=seen_us,
            )
        except (ValueError, KeyError, TypeError):
            return None

    def describe(self) -> str:
        """Return the heartbeat's text, which `read` parses."""
        document = asdict(self)
        del document["instance"], document["seen_us"]
        return json.dumps(document)

    def alive(self, now_us: int) -> bool:
        """Return whether the worker's heartbeat came within `GONE_S`."""
        return now_us - self.seen_us <= us_of(GONE_S)


class Fleet:
    """All workers, in the records' Redis; every method raises redis-py's errors."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self.key = f"{namespace}:workers"

    def join(self, member: Member, started_s: float) -> Member:
        """Add a worker that started this many seconds ago."""
        now_us, _ = self.read()
        joined = replace(member, started_us=now_us - us_of(started_s))
        self.beat(joined)
        return joined

    def beat(self, member: Member) -> None:
        """Write the worker's heartbeat."""
        beat(self._client, self.key, member.instance, member.describe())

    def leave(self, member: Member) -> None:
        """Remove a worker that shuts down normally."""
        self._client.hdel(self.key, member.instance)

    def read(self) -> tuple[int, list[Member]]:
        """Return the server's time in microseconds, and every worker that did not sign off."""
        now_us, beats = read_beats(self._client, self.key)
        found = [Member.read(name, us, text) for name, (us, text) in beats.items()]
        return now_us, [member for member in found if member is not None]

    def forget_old(self) -> None:
        """Remove workers without a heartbeat for an hour."""
        now_us, members = self.read()
        oldest_us = now_us - us_of(FORGOTTEN_S)
        old = [member.instance for member in members if member.seen_us < oldest_us]
        if old:
            self._client.hdel(self.key, *old)


def lives(members: Sequence[Member], worker: str, began_us: int, now_us: int) -> bool:
    """Return whether the process that began an attempt at that time under this name still lives.

    A process with the same name that started later is another process.
    """
    return any(
        member.worker == worker and member.started_us <= began_us and member.alive(now_us)
        for member in members
    )


def left_by_dead(members: Sequence[Member], now_us: int) -> set[str]:
    """Return the tags that a dead worker listed as held, and that no living worker lists."""
    living = {tag for member in members if member.alive(now_us) for tag in member.held}
    return {tag for member in members if not member.alive(now_us) for tag in member.held} - living
