"""Let the soft time limit interrupt only the handler, never the steps around it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["soft_limit_allowed", "soft_limit_blocked"]

_SOFT_LIMIT: Final = frozenset({signal.SIGUSR1})


@contextmanager
def soft_limit_blocked() -> Iterator[None]:
    """Hold back the signal of the soft time limit inside the block.

    If the signal arrives, a block of `soft_limit_allowed` inside raises it; otherwise it is
    dropped at the end.
    """
    if not _in_main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SOFT_LIMIT)
    try:
        yield
    finally:
        # A signal that came after the handler belongs to an attempt that is decided.
        if signal.SIGUSR1 in signal.sigpending():
            signal.sigwait(_SOFT_LIMIT)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def soft_limit_allowed() -> Iterator[None]:
    """Let the signal of the soft time limit interrupt the block.

    A signal that was held back is raised at once.
    """
    if not _in_main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _SOFT_LIMIT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
