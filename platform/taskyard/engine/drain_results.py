"""Read the outcomes from the pool's processes while a worker drains."""

from __future__ import annotations

from inspect import isgenerator
from typing import Any, Final

from billiard.pool import TERMINATE, WorkersJoined
from celery.concurrency import asynpool

from taskyard.engine.half_read_results import WholeResults

__all__ = ["LOOK_S", "DrainingResults"]

# A process that ends normally sends a last message; only a death without one must be looked for.
LOOK_S: Final = 0.05


class DrainingResults(WholeResults):
    """Reads the messages of the pool's processes until the last process has ended.

    A process ends when the main process has read its report of every job, or after 30 s. Celery
    stops reading when it waits for no job. So a report of a job that Celery had given up
    delayed the drain by those 30 s. Celery also sleeps 0.5 s for each process without a
    message. And Celery does not read the last message of a process, which then sleeps its last
    second in vain.
    """

    # A dead process writes nothing, and Celery's loop stops meanwhile: 1 s by default.
    partial_read_timeout = LOOK_S

    def on_stop_not_started(self) -> None:
        """Continue to read; Celery calls this when every process was asked to end after its job."""
        if self._hub is None:
            super().on_stop_not_started()
            return
        # A broken pipe is always readable.
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
        # The number of a closed pipe may belong to a connection by now.
        fds = {fd for fd, proc in self.fileno_to_outq.items() if not proc.outq._reader.closed}
        readable, _, again = asynpool._select(fds - broken, timeout=LOOK_S)
        return set() if again else set(readable)

    def _read(self, fd: int) -> bool:
        """Read once from a pipe, as the event loop did before it ended; False if it is broken.

        Celery's own code for a drain blocks for ever on a message whose writer is killed.
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
        """Return the reader of a message that was read in part; None if there is none."""
        callback, _ = self._hub.readers.get(fd) or (None, ())
        return callback if isgenerator(callback) else None
