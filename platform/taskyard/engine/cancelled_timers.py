"""Remove cancelled timers from the worker's list of timers at once.

kombu keeps a cancelled timer until its time. The pool sets one timer for each job, for its time
limit: a worker of 2,000 jobs a second with limits of an hour would keep seven million of them.
"""

from __future__ import annotations

import heapq
from functools import partial
from typing import Any, Final

from kombu.asynchronous.timer import Entry, Timer

__all__ = ["discard_cancelled"]

# For fewer a pass over the heap is not worth it.
_AT_LEAST: Final = 64


def discard_cancelled(timer: Any) -> None:
    """Make `timer` drop cancelled entries, so that at most about half of them are cancelled.

    Only for a timer that a single thread uses, as the main loop of a pool of processes does. A
    timer of another kind is not changed.
    """
    if type(timer) is Timer:
        timer.Entry = partial(_LeavingEntry, _Heap(timer))


class _Heap:
    """A timer's list that counts cancellations since the last clean-up.

    So each clean-up costs only a few steps for each cancellation.
    """

    def __init__(self, timer: Any) -> None:
        self._timer, self._cancelled = timer, 0

    def note_cancelled(self) -> None:
        self._cancelled += 1
        queue = self._timer._queue
        if self._cancelled >= _AT_LEAST and self._cancelled * 2 > len(queue):
            # In place: the hub and the timer's iterator hold this list.
            queue[:] = [scheduled for scheduled in queue if not scheduled.entry.canceled]
            heapq.heapify(queue)
            self._cancelled = 0


class _LeavingEntry(Entry):  # type: ignore[misc]
    """kombu's timer entry, which also reports its cancellation."""

    __slots__ = ("_heap",)

    def __init__(self, heap: _Heap, fun: Any, args: Any = None, kwargs: Any = None) -> None:
        super().__init__(fun, args, kwargs)
        self._heap = heap

    def cancel(self) -> None:
        """Cancel the entry, and report that once."""
        if not self.canceled:
            super().cancel()
            self._heap.note_cancelled()
