"""The decision about one attempt, as the script `finish` records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import TRANSITIONS, Event, State
from taskyard.records import Superseded
from taskyard.records.answers import Finished
from taskyard.settings import Settings
from taskyard.testing.draft import LEASE, Draft, Position

__all__ = ["finish"]

_US: Final = 1_000_000
_EVENTS: Final = {
    Decision.COMPLETED: Event.COMPLETE,
    Decision.RETRYING: Event.RETRY,
    Decision.DEAD_LETTERED: Event.FAIL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The arguments of `Records.finish`."""

    epoch: int
    generation: int
    seq: int
    token: int | None = None
    holder: str = ""
    result: bytes = b""
    delay_s: float = 0
    cause: bytes = b""
    code: str = ""
    category: str = ""
    message: str = ""

    def names(self, draft: Draft, token_field: str, holder_field: str) -> bool:
        """Whether this is the attempt that the two fields of the record name."""
        if self.token is not None:
            return draft.text(token_field) == str(self.token)
        return draft.text(holder_field) == self.holder


def finish(
    draft: Draft, settings: Settings, decision: Decision, **facts: object
) -> Finished | Superseded:
    """Record the decision; refused only if another attempt has the token."""
    told = Facts(**facts)  # type: ignore[arg-type]
    if draft.state is State.NONE:
        _recover(draft, told)
    if draft.number("epoch") != told.epoch:
        return Superseded(draft.state, draft.number("version"))
    if draft.state is not State.RUNNING or not told.names(draft, "token", "holder"):
        return _again(draft, decision, told)
    draft.set(
        deaths=max(draft.number("deaths") - 1, 0),
        decision=decision.value,
        decided=draft.now,
        decided_token=draft.text("token"),
        decided_holder=draft.text("holder"),
    )
    if decision is Decision.COMPLETED:
        _complete(draft, settings, told)
    else:
        _fail(draft, decision, told)
    return _finished(draft)


def _recover(draft: Draft, told: Facts) -> None:
    """The record was lost under a running attempt: what it decides stands."""
    draft.reborn(Position(told.epoch, told.generation, told.seq))
    draft.set(token=told.token, holder=told.holder, deaths=1, begins=told.seq + 1)
    draft.move(Event.BEGIN, attempt=draft.text("begins"))


def _again(draft: Draft, decision: Decision, told: Facts) -> Finished | Superseded:
    """The same decision again, whose first answer was lost on the way; or one that came late."""
    reached = draft.state is TRANSITIONS[State.RUNNING, _EVENTS[decision]]
    same = reached and draft.text("decision") == decision
    if same and told.names(draft, "decided_token", "decided_holder"):
        return _finished(draft)
    return Superseded(draft.state, draft.number("version"))


def _complete(draft: Draft, settings: Settings, told: Facts) -> None:
    draft.move(Event.COMPLETE, attempt=draft.text("begins"), worker=draft.text("worker") or "")
    draft.bury(settings.dedupe_window_s * _US)
    end_us = draft.now + settings.result_ttl_s * _US
    draft.shelf.keep_result(draft.job_id, told.result, end_us)


def _fail(draft: Draft, decision: Decision, told: Facts) -> None:
    first = draft.text("first_failure") or draft.now
    draft.set(attempts=draft.number("attempts") + 1, first_failure=first)
    draft.note(decision, told.code, told.message)
    if decision is Decision.RETRYING:
        draft.set(seq=draft.number("seq") + 1, due=draft.now + int(told.delay_s * _US))
    else:
        draft.set(cause=told.cause.decode())
    extra = {"code": told.code, "error": told.message, "category": told.category}
    draft.move(_EVENTS[decision], attempt=draft.text("begins"), **extra)
    draft.save()
    draft.drop(*LEASE)


def _finished(draft: Draft) -> Finished:
    return Finished(
        state=draft.state,
        version=draft.number("version"),
        seq=draft.number("seq"),
        due_us=draft.number("due"),
        decided_us=draft.number("decided"),
    )
