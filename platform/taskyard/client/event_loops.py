"""Deliver answers from a thread to event loops or threads that wait for them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

__all__ = ["Answer", "answer"]

# The waiting loop (None: a thread), its future, and the result or error.
Answer = tuple[asyncio.AbstractEventLoop | None, Any, object]


def answer(answers: Iterable[Answer]) -> None:
    """Give each future its answer in its own loop; each loop is woken only once."""
    by_loop: defaultdict[asyncio.AbstractEventLoop | None, list[tuple[Any, object]]]
    by_loop = defaultdict(list)
    for loop, future, outcome in answers:
        by_loop[loop].append((future, outcome))
    for loop, resolved in by_loop.items():
        if loop is None:
            _resolve(resolved)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, resolved)
        except RuntimeError:
            # The loop is closed, so its waiters have ended.
            continue


def _resolve(resolved: Iterable[tuple[Any, object]]) -> None:
    for future, outcome in resolved:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
