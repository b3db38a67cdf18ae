"""One request for messages (a pop): which lists it reads, and what its answer means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Found", "Order", "Pop"]


class Order:
    """The lists that a pop reads, and their order.

    Normally a pop reads level by level, and the queues of one level in rotation, or in the
    given order if they do not rotate. After `fairness` - 1 messages were requested, one pop
    reads in the opposite order and asks for one message. So the least urgent level and the last
    queue get one in `fairness` messages, or one in four pops if a pop asks for more, however
    much urgent work there is. `fairness` 0 switches that off.
    """

    def __init__(self, steps: Sequence[int], fairness: int, *, rotates: bool = True) -> None:
        if fairness < 0 or fairness == 1:
            raise ValueError(f"fairness must be 0 (off) or at least 2, got {fairness}")
        self._steps = tuple(steps)
        self.rotates = rotates
        self._fairness = fairness
        self._asked = self._pops = 0
        self._turn = 0
        self._floor_turn = 0

    def next(self, queues: Sequence[str], batch: int) -> tuple[list[tuple[str, int]], int]:
        """Return (queue, step) pairs in order of service, and how many messages to ask for."""
        if self._is_floors_turn():
            self._asked = self._pops = 0
            # A rotation of its own: one shared with the usual pops would always meet the same
            # queues.
            self._floor_turn += 1
            return self._pairs(queues, self._floor_turn)[::-1], min(batch, 1)
        self._asked += batch
        self._pops += 1
        self._turn += 1
        return self._pairs(queues, self._turn), batch

    def _is_floors_turn(self) -> bool:
        # One message costs as much as a batch, so such pops must not be too frequent.
        enough = self._fairness - 1
        return self._fairness > 0 and self._asked >= enough and self._pops >= min(enough, 3)

    def _pairs(self, queues: Sequence[str], turn: int) -> list[tuple[str, int]]:
        start = turn % len(queues) if self.rotates else 0
        rotated = [*queues[start:], *queues[:start]]
        return [(queue, step) for step in self._steps for queue in rotated]


@dataclass(frozen=True, slots=True)
class Found:
    """A message that a pop returned: its queue, its delivery tag, its bytes."""

    queue: str
    tag: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class UnreadableList:
    """A queue's list that Redis refused to read, and the reason."""

    queue: str
    step: int
    error: str


@dataclass(frozen=True, slots=True)
class Pop:
    """One pop: its lists as (queue, step), its serial numbers, the tags it acknowledges."""

    asked: Sequence[tuple[str, int]] = ()
    first: int = 0
    wanted: int = 0
    tags: list[str] = field(default_factory=list)

    def read(self, owner: str, answer: list[Any]) -> tuple[list[Found], list[UnreadableList]]:
        """Return the messages in the script's answer, and the lists that could not be read."""
        found: list[Found] = []
        odd: list[UnreadableList] = []
        for place, raw in zip(answer[::2], answer[1::2], strict=True):
            queue, step = self.asked[abs(place) - 1]
            if place > 0:
                found.append(Found(queue, f"{owner}:{self.first + len(found)}", raw))
            else:
                odd.append(UnreadableList(queue, step, raw.decode("utf-8", "replace")))
        return found, odd
