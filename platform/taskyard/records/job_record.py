"""A record, parsed for people and letters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from taskyard.jobs.states import State
from taskyard.wire.letter_envelope import AttemptNote

__all__ = ["HISTORY_LINES", "Record"]

# A letter has the first attempt and the last ones; a policy may retry without limit.
HISTORY_LINES: Final = 50
# A time in microseconds has 16, until the year 2286; more is no time, and no counter comes so far.
_MOST_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Record:
    """The live state of one job; times in microseconds, 0 if something has not happened."""

    job_id: str
    fields: dict[str, str]

    @property
    def state(self) -> State:
        """The job's state; `State.NONE` without a record."""
        return State(self.fields.get("state", "none"))

    def number(self, name: str) -> int:
        """Return a numeric field, 0 if it is absent or damaged."""
        value = self.fields.get(name, "")
        usable = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
        return int(value) if usable else 0

    @property
    def epoch(self) -> int:
        """The job's epoch."""
        return self.number("epoch")

    @property
    def generation(self) -> int:
        """The number of replays and redirects so far."""
        return self.number("generation")

    @property
    def job_type(self) -> str:
        """The task's name."""
        return self.fields.get("type", "")

    @property
    def queue(self) -> str:
        """The configured name of its queue."""
        return self.fields.get("queue", "")

    @property
    def cause(self) -> dict[str, Any]:
        """The cause of death of a dead-lettered job, else empty."""
        raw = self.fields.get("cause")
        return dict(json.loads(raw)) if raw else {}

    @property
    def history(self) -> list[AttemptNote]:
        """Return failed attempts of this generation, oldest first: the first and the last 49."""
        # Not `splitlines`: an error text may contain U+2028, which JSON does not escape.
        lines = self.fields.get("history", "").split("\n")
        return [AttemptNote.model_validate_json(line) for line in lines if line]

    @property
    def progress(self) -> dict[str, Any]:
        """Return what the handler reported last, `fraction` and `note`, or an empty mapping."""
        raw = self.fields.get("progress")
        return dict(json.loads(raw)) if raw else {}
