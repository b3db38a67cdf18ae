"""A step of the demonstration that did not happen."""

from __future__ import annotations

from pathlib import Path

from taskyard.errors import TaskyardError

__all__ = ["DemoFailed"]


class DemoFailed(TaskyardError):
    """Something that should have happened did not; `log` is what the processes wrote."""

    exit_code = 1

    def __init__(self, what: str, log: Path) -> None:
        self.log = log
        super().__init__(
            f"the demonstration stops: {what.rstrip(chr(46))}. See what the processes wrote: {log}"
        )
