"""Turns: who is compared runs one after the other, A B, then B A, until time or plan is used up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from bench.deadline import Deadline

__all__ = ["LEAST_ROUNDS", "interleaved", "order"]


class Named(Protocol):
    """Whatever takes turns."""

    @property
    def name(self) -> str:
        """The key of its figures."""
        ...


T = TypeVar("T")
C = TypeVar("C", bound=Named)
# A median of fewer says nothing; so many are run even when the time is up.
LEAST_ROUNDS: Final = 3


def order(contenders: Sequence[C], turn: int) -> Sequence[C]:
    """Forwards in even rounds, backwards in odd ones: what drifts favours nobody."""
    return contenders if turn % 2 == 0 else contenders[::-1]


def interleaved(
    contenders: Sequence[C],
    rounds: int,
    deadline: Deadline,
    measure: Callable[[C], T],
) -> dict[str, list[T]]:
    """`measure` of each contender, `rounds` times, or fewer if the deadline passes."""
    found: dict[str, list[T]] = {each.name: [] for each in contenders}
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and deadline.passed:
            break
        for each in order(contenders, turn):
            found[each.name].append(measure(each))
    return found
