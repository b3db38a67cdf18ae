"""The result of verifying the audit log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from taskyard.audit.exported_heads import Head

__all__ = ["EXAMPLES", "MEANINGS", "Finding", "Kind", "Report"]

EXAMPLES: Final = 20
"""How many findings of a kind are named; all are counted."""


class Kind(StrEnum):
    """What can be wrong with the audit log; `MEANINGS` explains each."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    BACKDATED = "backdated"
    SEALED_TWICE = "sealed_twice"
    DUPLICATE = "duplicate"
    REDEFINED = "redefined"
    SEAL_CHANGED = "seal_changed"
    CHAIN_BROKEN = "chain_broken"
    HEAD_DIFFERS = "head_differs"
    HEAD_MISSING = "head_missing"


MEANINGS: Final = {
    Kind.CHANGED: "a row was changed after it was sealed",
    Kind.MISSING: "a sealed row is missing",
    Kind.INSERTED: "a row was inserted among older rows after those were sealed",
    Kind.BACKDATED: "a row's time is before that of a seal that is older than the row",
    Kind.SEALED_TWICE: "a row is in two seals",
    Kind.DUPLICATE: "two rows have one id, or two seals one number",
    Kind.REDEFINED: "a table of the log was replaced, or does not show every role the same rows",
    Kind.SEAL_CHANGED: "a seal does not have the hash of its content",
    Kind.CHAIN_BROKEN: "a seal does not continue the one before it",
    Kind.HEAD_DIFFERS: "a seal differs from the exported head: the chain was rewritten",
    Kind.HEAD_MISSING: "the seal of an exported head is missing: the chain was shortened",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding in words, with the number of the `row` and of the `seal` that it concerns."""

    kind: Kind
    text: str
    row: int | None = None
    seal: int | None = None


@dataclass(slots=True)
class Report:
    """The result of a verification: what was verified, and what was found.

    `counts` has the number of findings by kind, `findings` the first findings of each kind.
    `unsealed` rows have no seal yet, the oldest since `unsealed_since`. `heads` is the number of
    exported heads that were found in the chain.
    """

    rows: int = 0
    seals: int = 0
    heads: int = 0
    archived: int = 0
    unsealed: int = 0
    unsealed_since: datetime | None = None
    head: Head | None = None
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Return whether the verification found nothing wrong."""
        return not self.counts

    def add(
        self, kind: Kind, text: str, *, row: int | None = None, seal: int | None = None
    ) -> None:
        """Count a finding, and keep it if it is among the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= EXAMPLES:
            self.findings.append(Finding(kind, text, row, seal))

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "intact": self.intact,
            "head": None if self.head is None else str(self.head),
            "rows": self.rows,
            "seals": self.seals,
            "heads_found": self.heads,
            "archived_rows": self.archived,
            "unsealed_rows": self.unsealed,
            "unsealed_since": self.unsealed_since,
            "counts": {kind.value: count for kind, count in sorted(self.counts.items())},
            "findings": [
                {"kind": each.kind, "row": each.row, "seal": each.seal, "text": each.text}
                for each in self.findings
            ],
            "notes": self.notes,
        }
