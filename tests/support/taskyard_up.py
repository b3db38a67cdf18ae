"""A running `taskyard up` in a folder of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from support.shell import Shell
from support.waiting import eventually

__all__ = ["Up"]

END_S = 90.0


class Up:
    """`taskyard up` with one process a worker, while the context is open."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.shell = Shell(folder)
        self._log = folder / "up.log"
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait_for(self, words: str) -> None:
        """Until the log has them; fails at once if the process ends before."""
        eventually(
            lambda: words in self.log or self.ended, f"{words!r} in the log", why=lambda: self.log
        )
        assert words in self.log, self.log

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def code(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(END_S)

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = self.shell.start(
                "up", "--concurrency", "1", *self._options, stdout=log, stderr=log
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.ended:
            self.interrupt()
            self.code()
