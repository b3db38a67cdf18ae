"""One record while a call works on it: what the prelude of the Redis scripts does, in memory.

Names, order and rules are those of `taskyard/records/scripts/prelude.lua`; a test drives both
with the same calls and compares every answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import TRANSITIONS, Event, State
from taskyard.records import Decided
from taskyard.records.record import HISTORY_LINES
from taskyard.testing.shelf import Shelf

__all__ = ["LEASE_EXPIRED", "Draft", "Position"]

LEASE_EXPIRED: Final = "the lease was not renewed"
DECISION: Final = ("decision", "decided", "decided_token", "decided_holder", "due")
LEASE: Final = ("holder", "process", "lease_until")
_OF_ONE_GENERATION: Final = (
    "cause", "history", "first_failure", "published", "progress", "cancel", "released",
)  # fmt: skip
_TOMBSTONE: Final = (
    "state", "epoch", "generation", "seq", "version", "type", "queue", "token", "decision",
    "decided", "decided_token", "decided_holder", "request", "unique_until", "ended",
    "call",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """Where a message says that its job stands; `epoch` None where it carries no stamp."""

    epoch: int | None
    generation: int
    seq: int
    job_type: str | None = None
    queue: str | None = None
    priority: int | None = None


class Draft:
    """The fields of one record; nothing is kept before `save`, except what is dropped."""

    def __init__(self, shelf: Shelf, job_id: str) -> None:
        self.shelf, self.job_id = shelf, job_id
        self.now = shelf.clock.now_us()
        self.fields = shelf.read(job_id)

    # -- reading -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the job stands."""
        return State(self.fields.get("state", State.NONE))

    def text(self, name: str) -> str | None:
        """A field, None if it is not there."""
        return self.fields.get(name)

    def number(self, name: str) -> int:
        """A numeric field, 0 if absent."""
        return int(self.fields.get(name) or 0)

    def takes(self, event: Event) -> bool:
        """Whether the state table has a row for `event` here."""
        return (self.state, event) in TRANSITIONS

    def decided(self, decision: Decision, due_us: int = 0) -> Decided:
        """The answer that names the standing decision."""
        place = self.number("epoch"), self.number("generation")
        return Decided(decision, self.number("seq"), due_us, *place)

    # -- writing -------------------------------------------------------------------------------

    def set(self, **values: object) -> None:
        """Set fields; None leaves a field as it is."""
        self.fields |= {name: str(value) for name, value in values.items() if value is not None}

    def drop(self, *names: str) -> None:
        """Remove fields, from what is kept as well."""
        for name in names:
            self.fields.pop(name, None)
        kept = self.shelf.read(self.job_id)
        if kept:
            self.shelf.write(self.job_id, {k: v for k, v in kept.items() if k not in names})

    def move(self, event: Event, **extra: object) -> None:
        """State, version and event, in one step."""
        self.set(state=TRANSITIONS[self.state, event].value, version=self.number("version") + 1)
        told = ("epoch", "version", "state", "generation", "seq")
        fact = {"job": self.job_id, "event": event.value, "at": str(self.now)}
        fact |= {name: self.fields.get(name, "") for name in told}
        self.shelf.events.append(fact | {name: str(value) for name, value in extra.items()})

    def save(self) -> None:
        """Keep the record as it is now."""
        self.shelf.write(self.job_id, self.fields)

    def patch(self, **values: object) -> None:
        """Set these fields of the record that is kept, and nothing else."""
        self.set(**values)
        changed = {name: self.fields[name] for name in values}
        self.shelf.write(self.job_id, self.shelf.read(self.job_id) | changed)

    def clear(self) -> None:
        """Forget the record and its result."""
        self.fields = {}
        self.shelf.delete(self.job_id)
        self.shelf.drop_result(self.job_id)

    # -- births and generations ----------------------------------------------------------------

    def birth(self, position: Position, epoch: int) -> None:
        """A record as admission makes it; the fencing token of an earlier life stays."""
        token = self.fields.get("token")
        self.fields = {}
        self.set(
            epoch=epoch,
            generation=position.generation,
            seq=position.seq,
            version=0,
            type=position.job_type,
            queue=position.queue,
            priority="" if position.priority is None else position.priority,
            admitted=self.now,
            token=token,
        )

    def reborn(self, position: Position) -> None:
        """A record from a message: each retry it has behind it was an attempt and an outcome."""
        self.birth(position, self.now if position.epoch is None else position.epoch)
        self.set(attempts=position.seq, begins=position.seq)
        if position.epoch is not None:
            self.skip_versions()
        self.shelf.deliveries.pop(self.job_id, None)

    def skip_versions(self) -> None:
        """Go on above every version that this life can have given before."""
        self.set(version=max(self.number("version"), self.now - self.number("epoch")))

    def open_generation(self, generation: int) -> None:
        """Counters, causes and requests belong to one generation."""
        self.set(generation=generation, seq=0, attempts=0, deaths=0, deliveries=0, begins=0)
        self.drop(*DECISION, *LEASE, *_OF_ONE_GENERATION)

    # -- ends ----------------------------------------------------------------------------------

    def bury(self, window_us: int) -> None:
        """Leave a tombstone, for the window or as long as the job is unique."""
        self.set(ended=self.now)
        self.fields = {name: self.fields[name] for name in _TOMBSTONE if name in self.fields}
        self.save()
        keep_us = max(window_us, self.number("unique_until") - self.now)
        self.shelf.end_at(self.job_id, self.now + keep_us)

    def note(self, outcome: str, code: str, message: str) -> None:
        """Add a line to the attempts' history."""
        line = {
            "attempt": self.fields.get("begins", "0"),
            "worker": self.fields.get("worker", ""),
            "started_us": self.fields.get("started", str(self.now)),
            "ended_us": str(self.now),
            "outcome": outcome,
            "code": code,
            "error": message,
        }
        lines = [*self.fields.get("history", "").splitlines(keepends=True), json.dumps(line) + "\n"]
        if len(lines) > HISTORY_LINES:
            del lines[1]
        self.set(history="".join(lines))

    def note_lost(self, code: str = "lease_expired", evidence: str = LEASE_EXPIRED) -> None:
        """The attempt before this one ended without a decision."""
        if self.state is State.RUNNING:
            self.note("lost", code, evidence)

    def lay_down(self) -> None:
        """Keep the record of a job that has just become a dead letter."""
        self.drop(*LEASE, "due", "released")
        self.save()
        self.shelf.end_at(self.job_id, None)

    def poison(self, limit: int, evidence: str) -> Decided:
        """End a job whose attempts died too often."""
        count = self.number("deaths")
        message = f"deaths reached {count}, the limit is {limit}"
        facts = {"counter": "deaths", "count": count, "limit": limit}
        facts |= {"last_worker": self.text("worker"), "last_evidence": evidence}
        cause = {"category": "poison", "code": "poison", "error_class": "PoisonJob"}
        self.drop(*DECISION)
        self.set(
            cause=json.dumps(cause | {"message": message, "evidence": facts}),
            decision=Decision.DEAD_LETTERED,
            decided=self.now,
            first_failure=self.text("first_failure") or self.now,
        )
        self.move(Event.FAIL, code="poison", category="poison", error=message)
        self.lay_down()
        return self.decided(Decision.DEAD_LETTERED)
