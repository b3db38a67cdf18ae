"""Celery's prefork pool: no pipe of a killed process is used again, deaths are seen at once.

The hooks are Celery's and billiard's private ones: their versions are pinned, and the tests of
workers' drains and deaths fail where a new one no longer calls them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from billiard.pool import CLOSE
from celery.concurrency import asynpool, prefork

from taskyard.engine.draining import DrainingResults
from taskyard.engine.whole_results import WholeResults

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
# A process that has closed its files and lives on is found by Celery's look every 5 s.
LOOKS: Final = 50


class OwnPipesPool(asynpool.AsynPool):  # type: ignore[misc]
    """A pool that gives the pipes of a killed process to no other, as an installed app has it."""

    ResultHandler = WholeResults

    def __init__(self, *args: Any, proc_alive_timeout: float | None = None, **kwargs: Any) -> None:
        # The main loop stands still while it connects or publishes, and reads nothing then: a new
        # process that has said that it lives would be killed after 4 s.
        longest = max(proc_alive_timeout or 0.0, UP_WITHIN_S)
        super().__init__(*args, proc_alive_timeout=longest, **kwargs)

    def read_new_processes(self) -> None:
        """Read what new processes have said while the main loop stood still.

        Must run before the timer that kills a process which has not answered.
        """
        fds = {process.outqR_fd for process in self._waiting_to_start}
        readable, _, _ = asynpool._select(fds, timeout=0)
        for fd in readable:
            self.handle_result_event(fd)

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch for the end of a process, unless the event of its end has come already.

        Celery registers its pool anew after each loss of the broker, and would end the worker over
        a process whose end is noticed and whose death could not be seen yet.
        """
        if getattr(proc, "_sentinel_poll", proc) is None:
            self._look_for_death(hub, proc)
        else:
            super()._track_child_process(proc, hub)

    def _look_for_death(self, hub: Any, proc: Any) -> None:
        """Celery looks at all processes every 5 s."""

    def _process_cleanup_queues(self, proc: Any) -> None:
        """Replace the pipes of a killed process; those of one that left in order are used again.

        It may have read half a message. Celery looks for the job whose message that was, and finds
        none where the broker was lost in between: the next process would take the message's middle
        for a length, and wait for ever.
        """
        if not proc.dead and proc.exitcode is not None and proc.exitcode < 0:
            # While its pipes are open: their numbers stand in every index.
            self.on_process_down(proc)
            proc.dead = True
            with suppress(ValueError):
                if self.destroy_queues(self._find_worker_queues(proc), proc):
                    self._queues[self.create_process_queues()] = None
            return
        super()._process_cleanup_queues(proc)

    def process_flush_queues(self, proc: Any) -> None:
        """Read what a dead process said before its jobs count as lost.

        The rest of a half-read message must not be taken for the beginning of another.
        """
        if not self._result_handler._finish_partial_read(proc.outqR_fd, proc):
            super().process_flush_queues(proc)


class JobPool(OwnPipesPool):
    """The processes of one worker, as its main process sees them."""

    ResultHandler = DrainingResults

    # -- deaths --------------------------------------------------------------------------------

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Look for a death until it can be seen.

        The kernel closes a dying process' files, which is the event, a moment before the process
        can be waited for. Celery looks once, most often too early, and then every 5 s.
        """
        super()._event_process_exit(hub, proc)
        self._look_for_death(hub, proc)

    def _look_for_death(self, hub: Any, proc: Any) -> None:
        # One that never came up would be replaced, and fail again, as fast as processes start.
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
        """Give up the jobs that no process can know of; at a drain, those alone.

        Celery gives up every job whose process has not answered yet. What was written to a process
        is run by it: at a drain it is finished and acknowledged, since it would run again.
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
        """A job of which a part was written would swallow the command to leave that follows it."""
        owners = {asynpool._get_job_writer(job): job for job in self._cache.values()}
        for writer in tuple(self._active_writers):
            job = owners.get(writer)
            if job is not None:
                self._flush_writer(job._write_to, writer)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """What `worker_pool` names."""

    Pool = JobPool


class InstalledTaskPool(prefork.TaskPool):  # type: ignore[misc]
    """What `worker_pool` names in an installed app that has Celery's prefork pool."""

    Pool = OwnPipesPool
