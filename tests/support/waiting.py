"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from taskyard.ops.embedded.waiting import until

__all__ = ["SOON_S", "eventually", "soon"]

T = TypeVar("T")

# Generous, for a machine whose two cores are shared; a test that passes does not use it up.
SOON_S = 40.0


def eventually(
    ask: Callable[[], T], what: str, *, within_s: float = SOON_S, why: Callable[[], str] = str
) -> T:
    """The first true answer of `ask`; fails with `what` was expected, the last answer and `why`."""
    last: list[T] = []

    def answered() -> bool:
        last[:] = [ask()]
        return bool(last[0])

    if not until(answered, within_s=within_s):
        raise AssertionError(f"not within {within_s:g} s: {what}; last: {last[0]!r}\n{why()}")
    return last[0]


async def soon(ask: Callable[[], object], what: str, *, within_s: float = SOON_S) -> None:
    """`eventually` for a coroutine: its loop goes on meanwhile."""
    until_s = monotonic() + within_s
    while not ask():
        assert monotonic() < until_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.01)
