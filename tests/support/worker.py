"""The worker under test: the shipped app in a process of its own, as an operator starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from support.preloaded import Running, launch
from support.waiting import SOON_S, eventually
from taskyard.settings import Settings

__all__ = ["HANDLERS", "Worker", "environment_of", "gone"]

TESTS = Path(__file__).resolve().parents[1]
HANDLERS = "support.handlers"


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give another process the same settings."""
    changed = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return {f"TASKYARD_{name.upper()}": str(value) for name, value in changed.items()}


def gone(pid: int) -> bool:
    """Whether a process ended; one that nobody has reaped yet ended as well."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@dataclass
class Worker:
    """One `celery -A taskyard.workers.app worker`; as a context it is killed at the end.

    Without `alone` it talks to other workers too, as Celery's do by default. `modules` are imported
    through the entry points of a distribution of its own, as the handlers of any service are: first
    those that change something (seams), then the handlers.
    """

    settings: Settings
    folder: Path
    queues: Sequence[str] = ("plan", "exec", "locator", "ops")
    concurrency: int = 2
    modules: Sequence[str] = (HANDLERS,)
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = "worker"
    alone: bool = True
    _process: Running | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None, "the worker was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has written so far."""
        return self._log_file.read_text("utf-8", "replace") if self._log_file.exists() else ""

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    def launch(self) -> Self:
        """Start the process without waiting for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._announce_modules()
        queues = ",".join(self.settings.broker_name(queue) for queue in self.queues)
        words = ["-A", "taskyard.workers.app", "worker"]
        words += ["-Q", queues, "-c", str(self.concurrency), "-n", f"{self.name}@%h", "-l", "INFO"]
        words += ["--without-gossip", "--without-mingle"] if self.alone else []
        words += self.options
        environment = {**_own_environment(), **environment_of(self.settings), **self._variables()}
        with self._log_file.open("ab") as log:
            self._process = launch(
                "celery", words, environment=environment, folder=self.folder, log=log
            )
        return self

    def start(self) -> Self:
        """Start it and wait until it consumes."""
        self.launch()
        self.await_log(" ready.")
        return self

    def await_log(self, text: str, within_s: float = SOON_S) -> None:
        """Wait until `text` stands in the log; fails at once if the worker ended without it."""
        found = eventually(
            lambda: "found" if text in self.log else "ended" if not self.running else "",
            f"{text!r} in the worker's log",
            within_s=within_s,
            why=lambda: self.log[-6000:],
        )
        assert found == "found", f"the worker ended without {text!r}:\n{self.log[-6000:]}"

    @property
    def running(self) -> bool:
        """Whether the main process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The main process' exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def children(self) -> list[int]:
        """The pool's processes."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listed.read_text("utf-8").split()] if listed.exists() else []

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the main process alone."""
        os.kill(self.pid, signum)

    def wait(self, within_s: float = SOON_S) -> int:
        """Wait for the main process to end; its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end:\n{self.log[-6000:]}") from None

    def stop(self) -> None:
        """End it warmly; what is left of its session after that is killed."""
        if self._process is None:
            return
        if self.running:
            self.kill(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self.kill_session()
        self._process.wait(10)

    def kill_session(self) -> None:
        """Kill whatever still runs in the session that this worker opened."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _announce_modules(self) -> None:
        about = self.folder / "worker_under_test-1.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: worker-under-test\nVersion: 1\n"
        )
        lines = [f"m{index} = {module}" for index, module in enumerate(self.modules)]
        (about / "entry_points.txt").write_text("\n".join(["[taskyard.jobs]", *lines, ""]))

    def _variables(self) -> dict[str, str]:
        inherited = os.environ.get("PYTHONPATH", "")
        return {"PYTHONPATH": f"{self.folder}:{TESTS}:{inherited}", **self.environment}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Draining has tests of its own; here it would only cost their time.
        if self._process is not None:
            self.kill_session()
            self._process.wait(10)
        if error is not None:
            sys.stdout.write(f"--- {self.name}\n{self.log[-12000:]}\n")


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
