"""The report of a run: counts by kind, some examples, and what could not be checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from taskyard.errors import TaskyardError
from taskyard.reconcile.inconsistency_kinds import MEANINGS, Kind

__all__ = ["EXAMPLES", "Continuing", "Finding", "Report"]

# People read a report; the counts are complete, the examples need not be.
EXAMPLES: Final = 20
# The kinds of inconsistency that a running job of a dead worker can have.
_OF_RUNNING: Final = frozenset(
    {
        Kind.HELD_BY_DEAD_WORKER,
        Kind.BEGUN_BY_DEAD_WORKER,
        Kind.STRANDED_RUNNING,
        Kind.COPY_UNREADABLE,
    }
)
# The kinds whose subject is not a job: a dead letter, or an entry at the broker.
_NOT_OF_JOBS: Final = frozenset(
    {
        Kind.LETTER_WITHOUT_RECORD,
        Kind.LETTER_BEHIND,
        Kind.DELAYED_WITHOUT_MESSAGE,
        Kind.DELAYED_WITHOUT_TIME,
        Kind.UNACKED_WITHOUT_MESSAGE,
        Kind.UNACKED_WITHOUT_TIME,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency; `detail` describes it.

    `mend` repairs it and returns whether it was repaired; None if no repair is possible.
    """

    kind: Kind
    subject: str
    mend: Callable[[], bool] | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Continuing:
    """A running job whose worker is dead, and that needs no repair; `detail` says why."""

    job_id: str
    worker: str
    detail: str


@dataclass(slots=True)
class Report:
    """The result of one comparison.

    `complete` is False if the time budget ended the comparison. `suspected` counts possible
    inconsistencies that cannot be verified; `unseen` says why. Of each kind, `most_examples` are
    named with their details. `continuing` are jobs of dead workers that need no repair.
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
    continuing: list[Continuing] = field(default_factory=list)
    continuing_total: int = 0
    _running: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Return the number of all inconsistencies."""
        return self.drift.total()

    def take(self, findings: Iterable[Finding]) -> None:
        """Count findings and, when repairing, mend those that can be mended."""
        for finding in findings:
            self.drift[finding.kind] += 1
            if finding.kind in _OF_RUNNING:
                self._running.add(finding.subject)
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

    def disagrees(self, job_id: str) -> bool:
        """Return whether a running job was found as an inconsistency."""
        return job_id in self._running

    def note_continuing(self, job: Continuing) -> None:
        """Add a job of a dead worker that needs no repair; it counts as no inconsistency."""
        self.continuing_total += 1
        if len(self.continuing) < self.most_examples:
            self.continuing.append(job)

    def _findings(self) -> Iterator[dict[str, str]]:
        for kind, subjects in self.examples.items():
            named = "subject" if kind in _NOT_OF_JOBS else "job_id"
            for subject in subjects:
                detail = self.details.get(subject, "")
                yield {"kind": kind.value, named: subject, "detail": detail}

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
            "findings": list(self._findings()),
            "continuing": {
                "count": self.continuing_total,
                "jobs": [asdict(job) for job in self.continuing],
            },
            "meanings": {kind.value: MEANINGS[kind].text for kind in self.examples},
            "suspected": self.suspected,
            "unseen": self.unseen,
            "looked_at": self.looked_at,
            "took_s": round(self.took_s, 3),
        }
