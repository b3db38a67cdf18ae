"""The report of a run: counts by kind, some examples, and what could not be checked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from taskyard.clock import Clock
from taskyard.errors import TaskyardError
from taskyard.reconcile.inconsistency_kinds import MEANINGS, Kind

__all__ = ["EXAMPLES", "Budget", "Finding", "Report"]

# People read a report; the counts are complete, the examples need not be.
EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency; `detail` describes it.

    `mend` repairs it and returns whether it was repaired; None if no repair is possible.
    """

    kind: Kind
    subject: str
    mend: Callable[[], bool] | None = None
    detail: str = ""


class Budget:
    """The time that a comparison may take; what is left then is reported as incomplete."""

    def __init__(self, clock: Clock, seconds: float, stop: threading.Event | None = None) -> None:
        self._clock, self._stop = clock, stop
        self._end_s = clock.monotonic_s() + seconds
        self.spent = False

    def ask(self) -> bool:
        """Return whether there is time left; after the first False the answer stays False."""
        stopped = self._stop is not None and self._stop.is_set()
        self.spent = self.spent or stopped or self._clock.monotonic_s() >= self._end_s
        return not self.spent


@dataclass(slots=True)
class Report:
    """The result of one comparison.

    `complete` is False if the time budget ended the comparison. `suspected` counts possible
    inconsistencies that cannot be verified; `unseen` says why. Of each kind, `most_examples` are
    named with their details.
    """

    repairing: bool = False
    most_examples: int = EXAMPLES
    complete: bool = True
    took_s: float = 0.0
    looked_at: dict[str, int] = field(default_factory=dict)
    drift: Counter[Kind] = field(default_factory=Counter)
    repaired: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[str]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    suspected: dict[str, int] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    gate: str | None = None

    @property
    def total(self) -> int:
        """Return the number of all inconsistencies."""
        return self.drift.total()

    def take(self, findings: Iterable[Finding]) -> None:
        """Count findings and, when repairing, mend those that can be mended."""
        for finding in findings:
            self.drift[finding.kind] += 1
            shown = self.examples.setdefault(finding.kind, [])
            if len(shown) < self.most_examples:
                shown.append(finding.subject)
                if finding.detail:
                    self.details[finding.subject] = finding.detail
            if self.repairing and finding.mend is not None and self._mended(finding, finding.mend):
                self.repaired[finding.kind] += 1

    def suspect(self, name: str, why: str | None) -> None:
        """Count a possible inconsistency.

        `why` says why it cannot be verified; None if it was verified.
        """
        if why is None:
            return
        self.suspected[name] = self.suspected.get(name, 0) + 1
        if why not in self.unseen:
            self.unseen.append(why)

    def _mended(self, finding: Finding, mend: Callable[[], bool]) -> bool:
        """Repair one finding; an error is logged, so that the next ones are still repaired."""
        try:
            return mend()
        except TaskyardError as error:
            self.unseen.append(f"{finding.kind} {finding.subject} was not repaired: {error}")
            return False

    def document(self) -> dict[str, Any]:
        """Return the report as plain data; every kind is named, also those with count 0."""
        return {
            "total": self.total,
            "complete": self.complete,
            "gate": {"open": self.gate is None, "why": self.gate},
            "drift": {kind.value: self.drift[kind] for kind in Kind},
            "repaired": {kind.value: self.repaired[kind] for kind in Kind if self.drift[kind]},
            "examples": {kind.value: shown for kind, shown in self.examples.items()},
            "details": self.details,
            "meanings": {kind.value: MEANINGS[kind].text for kind in self.examples},
            "suspected": self.suspected,
            "unseen": self.unseen,
            "looked_at": self.looked_at,
            "took_s": round(self.took_s, 3),
        }
