"""What the main process does with its pool's processes when the worker drains."""

from __future__ import annotations

from inspect import isgenerator
from typing import Any, Final

from billiard.pool import TERMINATE, WorkersJoined
from celery.concurrency import asynpool

from taskyard.engine.whole_results import WholeResults

__all__ = ["LOOK_S", "DrainingResults"]

# A process' last words wake the drain; only a death without any is found by looking.
LOOK_S: Final = 0.05


class DrainingResults(WholeResults):
    """Reads what the processes say until the last of them has left.

    A process leaves when the main process has read what it said of every job, or after 30 s.
    Celery stops reading once it waits for no job, so what was said of a job that it had given up
    held the drain for those 30 s. It also sleeps 0.5 s for each process that says nothing, and
    leaves unread the goodbye after which a process need not sleep its last second.
    """

    # A dead process writes no more, and Celery's loop stands still meanwhile: 1 s by default.
    partial_read_timeout = LOOK_S

    def on_stop_not_started(self) -> None:
        """Celery calls it once every process was asked to leave after its job."""
        if self._hub is None:
            super().on_stop_not_started()
            return
        # A pipe that broke is always readable.
        broken: set[int] = set()
        while self._state != TERMINATE:
            if self.check_timeouts is not None:
                self.check_timeouts()
            for fd in self._readable(broken):
                if not self._read(fd):
                    broken.add(fd)
            try:
                self.join_exited_workers(shutdown=True)
            except WorkersJoined:
                return

    def _readable(self, broken: set[int]) -> set[int]:
        # The number of a closed pipe may be that of a connection by now.
        fds = {fd for fd, proc in self.fileno_to_outq.items() if not proc.outq._reader.closed}
        readable, _, again = asynpool._select(fds - broken, timeout=LOOK_S)
        return set() if again else set(readable)

    def _read(self, fd: int) -> bool:
        """What the event loop would do, which has ended; False where the pipe broke.

        Celery's own way at a drain blocks for ever on a message whose writer is killed.
        """
        callback = self._half_read(fd)
        if callback is None:
            self.handle_event(fd)
            return fd in self._hub.readers
        try:
            next(callback, None)
        except (OSError, EOFError):
            self._hub.remove_reader(fd)
            return False
        return True

    def _half_read(self, fd: int) -> Any:
        """The reader of a message of which a part was read, or None."""
        callback, _ = self._hub.readers.get(fd) or (None, ())
        return callback if isgenerator(callback) else None
