"""A queue of limited size for the work of a background thread.

A forked process starts with a new queue.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar
from weakref import WeakMethod

__all__ = ["Backlog"]

T = TypeVar("T")


class Backlog(Generic[T]):
    """A queue and a thread, new in each process; the first item starts the thread.

    `work` runs in the thread: it takes items from the given queue until it gets None.
    """

    _lock: threading.Lock
    _queue: queue.Queue[T | None]
    _thread: threading.Thread | None

    def __init__(
        self, name: str, limit: int, work: Callable[[queue.Queue[T | None]], None]
    ) -> None:
        self._name, self._limit, self._work = name, limit, work
        self._begin_anew()
        # In a child the parent's locks may be locked for ever, and its thread does not run.
        anew = WeakMethod(self._begin_anew)
        os.register_at_fork(after_in_child=lambda: _call(anew))

    def put(self, item: T) -> None:
        """Add an item without waiting; raises `queue.Full`, or `RuntimeError` without a thread."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._work, args=(self._queue,), name=self._name, daemon=True
                )
                thread.start()
                self._thread = thread
            self._queue.put_nowait(item)

    def close(self, within_s: float) -> bool:
        """End the thread after the queue's items; return whether it ended within this time."""
        until = monotonic() + within_s
        with self._lock:
            thread, self._thread = self._thread, None
            waiting, self._queue = self._queue, queue.Queue(self._limit)
        if thread is None:
            return True
        try:
            waiting.put(None, timeout=within_s)
        except queue.Full:
            return False
        thread.join(max(0.0, until - monotonic()))
        return not thread.is_alive()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._queue = queue.Queue(self._limit)
        self._thread = None


def _call(method: WeakMethod[Callable[[], None]]) -> None:
    alive = method()
    if alive is not None:
        alive()
