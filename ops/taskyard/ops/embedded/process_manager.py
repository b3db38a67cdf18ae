"""honcho's manager with another shutdown: drain on the first signal, kill on the second.

honcho's own loop kills 5 s after the first process ended (`KILL_WAIT`), treats a second Ctrl-C like
the first, fails on a signal that comes before all have started, and sends SIGTERM to whole process
groups, which ends a Celery worker's pool in the middle of its jobs.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from honcho.manager import Manager

from taskyard.clock import Clock
from taskyard.ops.embedded.command_process import CommandProcess

__all__ = ["ProcessManager"]

TURN_S = 0.1
FAREWELL_S = 5.0
FAILED = 1
KILLED_BASE = 128


class ProcessManager(Manager):  # type: ignore[misc]  # honcho publishes no types
    """Runs the added commands until one ends, a signal stops all, or `fault` reports a cause.

    `returncode` afterwards: 0 if a signal stopped them and all drained; 128 + the signal if some
    had to be killed; else the code of the command that ended by itself, 1 for a success, since none
    was expected to end.
    """

    def __init__(
        self, printer: Any, *, drain_s: float, clock: Clock, fault: Callable[[], str | None]
    ) -> None:
        super().__init__(printer)
        self._fault = fault
        self._drain_s = drain_s
        self._steady = clock
        self._asked: list[int] = []
        self._heard = 0
        self._kill_at_s: float | None = None
        self._killed = False
        self._code: int | None = None
        self._process_ctor = lambda command, **facts: CommandProcess(
            command, drain_s=drain_s, **facts
        )

    def loop(self) -> None:
        """Start all, print what they write, return when the last has ended."""
        before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._start()
            while self._running():
                self._turn()
        finally:
            for name in self._running():
                self._send(name, signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
        self.returncode = self._exit_code()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Only store the signal: printing inside a signal handler may interrupt another print."""
        self._asked.append(number)

    def _turn(self) -> None:
        try:
            self._handle(self.events.get(timeout=TURN_S))
        except queue.Empty:
            self._reap_lost_watchers()
        self._look_for_fault()
        if len(self._asked) > self._heard:
            self._obey(self._asked[self._heard])
            self._heard += 1
        if self._kill_at_s is not None and self._steady.monotonic_s() >= self._kill_at_s:
            self._say(f"not drained after {self._drain_s:g} s: killing all")
            self._kill()

    def _look_for_fault(self) -> None:
        if self._terminating:
            return
        fault = self._fault()
        if fault is not None:
            self._say(fault)
            self._code = FAILED
            # No process can finish work any more: wait only as long as a clean exit takes.
            self._drain_s = min(self._drain_s, FAREWELL_S)
            self._drain()

    def _handle(self, event: Any) -> None:
        if event.type == "line":
            self._printer.write(event)
        elif event.type == "start":
            self._processes[event.name]["pid"] = event.data["pid"]
            self._say(f"{event.name} started (pid {event.data['pid']})")
            self._catch_up(event.name)
        else:
            self._ended(event.name, event.data["returncode"])

    def _catch_up(self, name: str) -> None:
        """Send the signal to a command that started after the signal came."""
        if self._killed:
            self._send(name, signal.SIGKILL)
        elif self._terminating:
            self._send(name, signal.SIGTERM)

    def _ended(self, name: str, code: int) -> None:
        self._processes[name]["returncode"] = code
        if self._terminating:
            self._say(f"{name} stopped ({_exit_text(code)})")
            return
        self._say(f"{name} ended unexpectedly ({_exit_text(code)}), stopping the others")
        self._code = _shell_code(code)
        self._drain()

    def _obey(self, number: int) -> None:
        asked = signal.Signals(number).name
        if self._heard > 0:
            self._say(f"{asked} again: killing all")
            self._kill()
        elif self._terminating:
            self._say(
                f"{asked} received, the others are already stopping; send it again to kill them"
            )
        else:
            self._say(
                f"{asked} received, draining for up to {self._drain_s:g} s; send it again "
                f"to kill all"
            )
            self._drain()

    def _drain(self) -> None:
        self._terminating = True
        self._kill_at_s = self._steady.monotonic_s() + self._drain_s
        for name in self._running():
            self._send(name, signal.SIGTERM)

    def _kill(self) -> None:
        self._killed, self._kill_at_s = True, None
        for name in self._running():
            self._send(name, signal.SIGKILL)

    def _send(self, name: str, number: signal.Signals) -> None:
        """Send SIGTERM only to the command, SIGKILL to its whole group."""
        pid = self._processes[name].get("pid")
        if pid is None:
            return  # `_catch_up` sends it.
        send = os.killpg if number == signal.SIGKILL else os.kill
        try:
            send(pid, number)
        except ProcessLookupError:
            return  # It ended by itself; its stop event will follow.

    def _reap_lost_watchers(self) -> None:
        """Report the end of a command whose honcho process was killed and cannot report it."""
        for name in self._running():
            watcher = self._processes[name]["process"]
            if not watcher.is_alive() and self.events.empty():
                self._send(name, signal.SIGKILL)
                self._ended(name, watcher.exitcode)

    def _running(self) -> list[str]:
        return [name for name, facts in self._processes.items() if "returncode" not in facts]

    def _exit_code(self) -> int:
        if self._code is not None:
            return self._code
        return KILLED_BASE + self._asked[-1] if self._killed and self._asked else 0

    def _say(self, text: str) -> None:
        self._system_print(text + "\n")


def _exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _shell_code(code: int) -> int:
    if code < 0:
        return KILLED_BASE - code
    return code or FAILED
