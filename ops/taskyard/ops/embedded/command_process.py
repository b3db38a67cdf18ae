"""honcho's process for one command, which ends the command in two more cases.

honcho forks one process for each command, to read its output; that process ignores signals and ends
with its command. So a command would survive a killed `taskyard up`. And if a command died while a
child of it kept the output open, its death would not be noticed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from typing import Any

from honcho.process import Popen, Process

__all__ = ["CommandProcess"]

CHECK_S = 0.5
LEFT_BEHIND_S = 5.0
"""How long the children of an ended command may still write before they are killed."""


class CommandProcess(Process):  # type: ignore[misc]  # honcho publishes no types
    """One command, as a list of words; `drain_s` is its time to finish if its owner was killed."""

    def __init__(self, command: list[str], *, drain_s: float, **facts: Any) -> None:
        super().__init__(command, **facts)
        self._drain_s = drain_s
        # Without a shell in between, which would receive the signals in place of the command.
        self._child_ctor = partial(Popen, shell=False)

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        """Run the command as honcho does, with a thread that watches both ends.

        Report a command that was not found.
        """
        threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        try:
            super().run(events, ignore_signals)
            self._kill_group()
        except OSError as error:
            self._send_message({"pid": os.getpid()}, type="start")
            self._send_message(f"cannot be started: {error}")
            self._send_message({"returncode": 127}, type="stop")

    def _watch(self, owner: int) -> None:
        while not self._ended():
            if self._child is not None and os.getppid() != owner:
                self._drain()
                break
            time.sleep(CHECK_S)
        else:
            time.sleep(LEFT_BEHIND_S)
        self._kill_group()

    def _ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _drain(self) -> None:
        deadline_s = time.monotonic() + self._drain_s
        self._child.send_signal(signal.SIGTERM)
        while not self._ended() and time.monotonic() < deadline_s:
            time.sleep(CHECK_S)

    def _kill_group(self) -> None:
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # No child is left.
