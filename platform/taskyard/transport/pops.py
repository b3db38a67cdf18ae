"""One pop: which lists it asks, what it sends along, and what its answer means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Found", "Pop", "UnreadableList"]


@dataclass(frozen=True, slots=True)
class Found:
    """A message from a pop: its queue, the tag it is recorded under, its bytes."""

    queue: str
    tag: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class UnreadableList:
    """A queue's list that Redis would not read, and why."""

    queue: str
    step: int
    error: str


@dataclass(frozen=True, slots=True)
class Pop:
    """(queue, step) of the lists asked, serial numbers reserved, tags acknowledged with it."""

    asked: Sequence[tuple[str, int]] = ()
    first: int = 0
    wanted: int = 0
    tags: list[str] = field(default_factory=list)

    def read(self, owner: str, answer: list[Any]) -> tuple[list[Found], list[UnreadableList]]:
        """The messages in the script's answer, and the lists that could not be read."""
        found: list[Found] = []
        odd: list[UnreadableList] = []
        for place, raw in zip(answer[::2], answer[1::2], strict=True):
            queue, step = self.asked[abs(place) - 1]
            if place > 0:
                found.append(Found(queue, f"{owner}:{self.first + len(found)}", raw))
            else:
                odd.append(UnreadableList(queue, step, raw.decode("utf-8", "replace")))
        return found, odd
