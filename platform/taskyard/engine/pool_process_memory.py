"""Measure the memory of the pool's processes, and report that of a process that died.

"signal 9" does not distinguish an operator's `kill` from a kernel that ran out of memory. So a dead
letter names the last measurement, and whether the kernel killed processes for memory (OOM).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from celery import bootsteps

from taskyard.clock import Clock

__all__ = ["INTERVAL_S", "MemoryWatch", "ProcessMemory", "oom_kills"]

INTERVAL_S: Final = 0.5
_MIB: Final = 1_048_576
_RESIDENT: Final = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_OOM_KILLS: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(slots=True)
class _Look:
    """One measurement: the process' bytes, when they were read, the earlier OOM kills."""

    resident: int
    at_s: float
    oom_kills: int | None


class ProcessMemory:
    """Reads the memory of running jobs' processes from /proc.

    On a system without /proc it reports nothing.
    """

    def __init__(self, clock: Clock, root: Path = Path("/")) -> None:
        self._clock, self._root = clock, root
        self._looks: dict[str, _Look] = {}

    def look(self, running: Mapping[str, int]) -> None:
        """Measure the memory of each running job's process (job id -> pid); forget others."""
        kills = oom_kills(self._root) if running else None
        self._looks = {job_id: look for job_id, look in self._looks.items() if job_id in running}
        for job_id, pid in running.items():
            resident = self._resident(pid)
            if resident is None:
                continue
            before = self._looks.get(job_id)
            first_kills = kills if before is None else before.oom_kills
            self._looks[job_id] = _Look(resident, self._clock.monotonic_s(), first_kills)

    def last_words(self, job_id: str) -> str:
        """Return what is known of the memory of a job's dead process, as the end of a sentence.

        The text may be empty.
        """
        reading = self._looks.pop(job_id, None)
        if reading is None:
            return ""
        ago_s = self._clock.monotonic_s() - reading.at_s
        held = f"{reading.resident / _MIB:,.0f} MiB"
        words = f"; it used {held} of memory when last measured, {ago_s:.1f} s before"
        kills = oom_kills(self._root)
        if kills is not None and reading.oom_kills is not None and kills > reading.oom_kills:
            words += ", and while it ran the kernel killed processes of its memory group (OOM)"
        return words

    def _resident(self, pid: int) -> int | None:
        # A process that has ended and was not waited for yet has a status without memory.
        found = _RESIDENT.search(_text(self._root / "proc" / str(pid) / "status"))
        return None if found is None else int(found[1]) * 1024


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how often the kernel killed a process of this memory group; None if it is unknown.

    The number comes from `memory.events` of cgroup v2, or `memory.oom_control` of v1. A
    container sees its own group at the mount's root, whatever /proc calls it.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = mount, "memory.events"
        elif "memory" in controllers.split(","):
            folder, name = mount / "memory", "memory.oom_control"
        else:
            continue
        for place in (folder / path.lstrip("/"), folder):
            found = _OOM_KILLS.search(_text(place / name))
            if found is not None:
                return int(found[1])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        # It has ended, or this is not Linux.
        return ""


class MemoryWatch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Measures the memory of job processes every 0.5 s, in each worker's main process."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer that measures memory."""
        context = consumer.app.taskyard
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, _measure, (context,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer that measures memory."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def _measure(context: Any) -> None:
    """Measure, if the pool is there; `context` is the worker's `WorkerContext`."""
    if context.ports is not None:
        context.memory.look(context.ports.work.processes_of_jobs())
