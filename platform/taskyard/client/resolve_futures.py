"""Resolve futures from another thread: those of event loops, and those that threads wait for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

__all__ = ["Answer", "resolve"]

# The waiting loop (None: a thread), its future, and the result or error.
Answer = tuple[asyncio.AbstractEventLoop | None, Any, object]


def resolve(answers: Iterable[Answer]) -> None:
    """Give each future its result or error, in its own loop; wake each loop only once."""
    by_loop: defaultdict[asyncio.AbstractEventLoop | None, list[tuple[Any, object]]]
    by_loop = defaultdict(list)
    for loop, future, outcome in answers:
        by_loop[loop].append((future, outcome))
    for loop, resolved in by_loop.items():
        if loop is None:
            _set_results(resolved)
            continue
        try:
            loop.call_soon_threadsafe(_set_results, resolved)
        except RuntimeError:
            # The loop is closed: nothing waits for these futures any more.
            continue


def _set_results(resolved: Iterable[tuple[Any, object]]) -> None:
    for future, outcome in resolved:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
