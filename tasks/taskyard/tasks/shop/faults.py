"""The ways in which the shop can be broken while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["SLOW_S", "Fault", "FaultSwitch"]

SLOW_S: Final = 30.0
"""How long a slow shop keeps a visitor waiting; longer than any driver here waits."""


class Fault(StrEnum):
    """One fault of the shop that can be switched on."""

    RENAMED_BUTTON = "renamed_button"
    """The checkout's button says something else: an action's element is not found."""
    RENAMED_FIELD = "renamed_field"
    """The checkout's name field has another label."""
    LOST_ORDER = "lost_order"
    """The shop accepts orders without a confirmation page: an assertion fails."""
    ERROR_500 = "error_500"
    """The checkout answers 500."""
    SLOW = "slow"
    """Pages do not come in time: the network times out."""


@dataclass(slots=True)
class FaultSwitch:
    """The present fault of the shop: set in this process, or by a file.

    While the file exists, the shop has a fault; the file's text names the fault (`renamed_button`
    if it names none). When the file is deleted, the shop works again.
    """

    file: Path | None = None
    fault: Fault | None = field(default=None)

    def now(self) -> Fault | None:
        """Return the present fault, or None."""
        return self.fault or self._from_file()

    def _from_file(self) -> Fault | None:
        try:
            text = "" if self.file is None else self.file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        if self.file is None:
            return None
        return Fault(text) if text in set(Fault) else Fault.RENAMED_BUTTON
