"""A step of the demonstration that did not happen."""

from __future__ import annotations

from pathlib import Path

from taskyard.errors import TaskyardError

__all__ = ["DemoFailed"]


class DemoFailed(TaskyardError):
    """A step of the demonstration failed; `log` is what the processes wrote."""

    exit_code = 1

    def __init__(self, what: str, log: Path) -> None:
        self.log = log
        said = what.rstrip(".")
        super().__init__(f"the demonstration stops: {said}. What the processes wrote: {log}")
