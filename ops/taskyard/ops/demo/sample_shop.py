"""The sample shop as a separate process; a file breaks it, and removing the file repairs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from taskyard.ops.embedded.supervised_server import Program, SupervisedServer

__all__ = ["DemoShop"]

FAULT: Final = "renamed_button"


class DemoShop:
    """Runs while the context is open; `url` is None until the shop answers."""

    def __init__(self, folder: Path) -> None:
        self._fault_file = folder / "shop-fault"
        self._address = folder / "shop.log"
        self._folder = folder
        self._process: SupervisedServer | None = None

    @property
    def url(self) -> str | None:
        """The shop's URL: the first line that the shop prints."""
        lines = self._address.read_text().splitlines() if self._address.exists() else []
        found = [line for line in lines if line.startswith("http://")]
        return found[0] if found else None

    def break_checkout(self) -> None:
        """Rename the button "Place order", so that the plan fails."""
        self._fault_file.write_text(FAULT)

    def repair(self) -> None:
        """Give the button its name back."""
        self._fault_file.unlink()

    def __enter__(self) -> Self:
        """Start the shop."""
        words = ["-m", "taskyard.tasks.shop", "--fault-file", str(self._fault_file)]
        self._process = SupervisedServer(
            Program(
                argv=[sys.executable, *words],
                log=self._address,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                cwd=self._folder,
                stop_signals=(signal.SIGINT,),
            )
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the shop."""
        if self._process is not None:
            self._process.stop()
