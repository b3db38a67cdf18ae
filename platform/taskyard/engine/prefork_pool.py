"""Celery's prefork pool, changed to notice deaths at once and to survive a killed process.

A killed process' pipes are never used again. The methods are private ones of Celery and billiard:
their versions are pinned, and the tests of drains and deaths fail if a new version no longer calls
them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from billiard.pool import CLOSE
from billiard.util import get_pdeathsig
from celery.concurrency import asynpool, prefork

from taskyard.engine.drain_results import DrainingResults
from taskyard.engine.half_read_results import WholeResults

__all__ = [
    "LOOKS",
    "LOOK_AGAIN_S",
    "InstalledTaskPool",
    "JobPool",
    "OwnPipesPool",
    "TaskPool",
]

LOOK_AGAIN_S: Final = 0.01
UP_WITHIN_S: Final = 60.0
# A process that has closed its files and lives on is found by Celery's check every 5 s.
LOOKS: Final = 50


def load_for_children() -> None:
    """Load before the fork what each new process needs, so that the memory is shared.

    Each process of billiard sets its signal for the death of its parent. Where cffi is installed,
    as it is with cryptography, this loads a parser of C: 5 MiB and 50 ms for each process.
    """
    with suppress(OSError):  # raised where the system has no such signal
        get_pdeathsig()


class OwnPipesPool(asynpool.AsynPool):  # type: ignore[misc]
    """A pool that never reuses the pipes of a killed process; installed apps use this class."""

    ResultHandler = WholeResults

    def __init__(self, *args: Any, proc_alive_timeout: float | None = None, **kwargs: Any) -> None:
        # The main loop reads nothing while it connects or publishes; a new process that has
        # reported itself meanwhile would be killed after 4 s.
        longest = max(proc_alive_timeout or 0.0, UP_WITHIN_S)
        load_for_children()
        super().__init__(*args, proc_alive_timeout=longest, **kwargs)

    def read_new_processes(self) -> None:
        """Read the messages of new processes that came while the main loop was busy.

        This must run before the timer that kills a process which has not answered.
        """
        fds = {process.outqR_fd for process in self._waiting_to_start}
        readable, _, _ = asynpool._select(fds, timeout=0)
        for fd in readable:
            self.handle_result_event(fd)

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch for the end of a process, unless its end was already noticed.

        Celery registers its pool again after each loss of the broker. It would end the
        worker because of a process whose end was noticed, but whose exit status was not yet
        available.
        """
        if getattr(proc, "_sentinel_poll", proc) is None:
            self._look_for_death(hub, proc)
        else:
            super()._track_child_process(proc, hub)

    def _look_for_death(self, hub: Any, proc: Any) -> None:
        """Look for dead processes now; Celery checks all processes only every 5 s."""

    def _process_cleanup_queues(self, proc: Any) -> None:
        """Replace the pipes of a killed process; pipes of one that ended normally are used again.

        The killed process may have read half a message. Celery looks for the job of that
        message, and finds none if the broker was lost in between. The next process would
        read the middle of the message as a length, and wait for ever.
        """
        if not proc.dead and proc.exitcode is not None and proc.exitcode < 0:
            # While its pipes are open, since every index has their numbers.
            self.on_process_down(proc)
            proc.dead = True
            with suppress(ValueError):
                if self.destroy_queues(self._find_worker_queues(proc), proc):
                    self._queues[self.create_process_queues()] = None
            return
        super()._process_cleanup_queues(proc)

    def process_flush_queues(self, proc: Any) -> None:
        """Read what a dead process wrote, before its jobs count as lost.

        The rest of a half-read message must not be read as the beginning of another.
        """
        if not self._result_handler._finish_partial_read(proc.outqR_fd, proc):
            super().process_flush_queues(proc)


class JobPool(OwnPipesPool):
    """The pool of one worker's processes, as its main process sees them."""

    ResultHandler = DrainingResults

    # -- deaths --------------------------------------------------------------------------------

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Look for the death of a process until its exit status is available.

        The kernel closes a dying process' files a moment before its exit status is
        available, and the closed files are the event. Celery looks once, most often too
        early, and then every 5 s.
        """
        super()._event_process_exit(hub, proc)
        self._look_for_death(hub, proc)

    def _look_for_death(self, hub: Any, proc: Any) -> None:
        # A process that never started properly would be replaced, and fail again, as fast as
        # processes start.
        if proc in self._pool and proc not in self._waiting_to_start:
            self._look_later(hub, proc, LOOKS)

    def _look_later(self, hub: Any, proc: Any, looks: int) -> None:
        hub.call_later(LOOK_AGAIN_S, self._look_again, hub, proc, looks - 1)

    def _look_again(self, hub: Any, proc: Any, looks: int) -> None:
        if proc not in self._pool:
            return
        if not proc._is_alive():
            self.maintain_pool()
        elif looks > 0:
            self._look_later(hub, proc, looks)

    # -- drain ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Discard jobs that no process runs, because their messages return to the queues.

        Celery discards every job that no process has confirmed. But a process also runs a job
        that is written to its pipe and not confirmed yet. During a drain this keeps such a job,
        so that it ends and is acknowledged; discarded, it would run a second time elsewhere.
        """
        if self._state != CLOSE:
            super().flush()
            return
        for job in tuple(self._cache.values()):
            if not job._accepted and (job._write_to is None or job in self.outbound_buffer):
                job.discard()
        self.outbound_buffer.clear()
        self._finish_writing()

    def _finish_writing(self) -> None:
        """Finish writing a job that was written in part.

        The process would otherwise read the next command as the rest of that job.
        """
        owners = {asynpool._get_job_writer(job): job for job in self._cache.values()}
        for writer in tuple(self._active_writers):
            job = owners.get(writer)
            if job is not None:
                self._flush_writer(job._write_to, writer)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """The pool class that the setting `worker_pool` names for workers of job types."""

    Pool = JobPool


class InstalledTaskPool(prefork.TaskPool):  # type: ignore[misc]
    """The pool class that `worker_pool` names if an installed app uses Celery's prefork pool."""

    Pool = OwnPipesPool
