"""The processes under a storm, and who ended by itself.

A storm kills, and starts again what it killed, as a supervisor of production would. A worker, a
mirror or a relay that ends without being killed is a fault, whatever its exit code: it is noted
with its last log lines, so that the storm fails, and then started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from taskyard.ops.embedded.waiting import until

__all__ = ["Daemon", "Supervised", "Supervisor"]

_LINES: Final = 25
_END_S: Final = 20.0


class Supervised(Protocol):
    """A process that is started again after a kill; it leads a session of its own."""

    name: str

    @property
    def pid(self) -> int: ...  # noqa: D102 - as of any process

    @property
    def log(self) -> str:
        """All it has written so far, in every life."""

    @property
    def running(self) -> bool:
        """Whether the main process runs."""

    @property
    def exit_code(self) -> int | None:
        """The main process' exit code, negative for a signal; None while it runs."""

    def launch(self) -> object:
        """Start it without waiting."""

    def children(self) -> list[int]:
        """The main process' own processes."""

    def kill_session(self) -> None:
        """Kill whatever runs in its session."""

    def wait(self) -> int:
        """Wait for the main process to end; its exit code."""


@dataclass
class Daemon:
    """A program of ours, such as the mirror or a worker of an installed app."""

    name: str
    argv: Sequence[str]
    environment: dict[str, str]
    folder: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has written so far, in every life."""
        return self._log_file.read_text("utf-8", "replace") if self._log_file.exists() else ""

    @property
    def running(self) -> bool:
        """Whether the main process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The main process' exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def launch(self) -> None:
        """Start it without waiting; what it writes goes to its log."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                self.argv,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def children(self) -> list[int]:
        """The main process' own processes."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listed.read_text("utf-8").split()] if listed.exists() else []

    def kill_session(self) -> None:
        """Kill whatever runs in its session."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self) -> int:
        """Wait for the main process to end; its exit code."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.wait(_END_S)


@dataclass
class Supervisor:
    """Kills and starts again; `ended` names each process that ended by itself."""

    processes: list[Supervised] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    _killed: set[str] = field(default_factory=set)
    _said_before: dict[str, int] = field(default_factory=dict)

    def start(self, process: Supervised) -> None:
        """Start a process and supervise it from now on."""
        process.launch()
        self.processes.append(process)

    def kill(self, processes: Iterable[Supervised]) -> None:
        """SIGKILL to the whole session of each; returns when all of them are gone."""
        chosen = list(processes)
        for process in chosen:
            self._note(process)
            self._killed.add(process.name)
            process.kill_session()
        for process in chosen:
            process.wait()

    def terminate(self, process: Supervised) -> None:
        """SIGTERM to the main process, as a deployment sends; SIGKILL if it takes too long."""
        self._note(process)
        self._killed.add(process.name)
        if process.running:
            os.kill(process.pid, signal.SIGTERM)
            until(lambda: not process.running, within_s=_END_S, every_s=0.1)
        process.kill_session()
        process.wait()

    def ensure(self) -> None:
        """Start again whatever does not run, and note what was not killed."""
        for process in self.processes:
            if process.running:
                continue
            self._note(process)
            self._killed.discard(process.name)
            # What its main process left behind in its session would be a second worker.
            process.kill_session()
            self._said_before[process.name] = len(process.log)
            process.launch()

    def await_ready(self) -> None:
        """Wait until every process has said that it is ready, or has ended."""
        for process in self.processes:
            until(partial(self._started, process), within_s=_END_S, every_s=0.1)

    def _started(self, process: Supervised) -> bool:
        said = process.log[self._said_before.get(process.name, 0) :]
        return " ready" in said or not process.running

    def stop(self) -> None:
        """At the storm's end: note what ended by itself, kill the rest."""
        self.kill(self.processes)

    def _note(self, process: Supervised) -> None:
        if process.running or process.name in self._killed:
            return
        last = "\n".join(process.log.splitlines()[-_LINES:])
        self.ended.append(
            f"{process.name} ended by itself with exit code {process.exit_code}; its log ends:\n"
            f"{last}"
        )
