"""Deferring the soft time limit while a decision is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["shielded"]


@contextmanager
def shielded() -> Iterator[None]:
    """Hold back the soft time limit's signal: the handler is over, its outcome must be recorded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    finally:
        # What arrived meanwhile belongs to an attempt that is decided.
        if signal.SIGUSR1 in signal.sigpending():
            signal.sigwait({signal.SIGUSR1})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
