"""Attempts that end without a decision, and messages that die without an attempt."""

from __future__ import annotations

from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import Event, State
from taskyard.records import Decided, Ended, Held, NotHeld, Requeue, Reused, Stale
from taskyard.testing.draft import DECISION, LEASE, Draft, Position
from taskyard.testing.place import place

__all__ = ["condemn", "lose", "release"]


def release(draft: Draft, holder: str) -> Requeue | NotHeld | Decided:
    """The worker drains: the attempt counts nowhere."""
    answer = _not_ours(draft, holder)
    if answer is not None:
        return answer
    draft.set(deaths=max(draft.number("deaths") - 1, 0))
    return _requeue(draft, Event.RELEASE, holder, "")


def lose(draft: Draft, holder: str, evidence: str, death_limit: int) -> Requeue | NotHeld | Decided:
    """The attempt's process died: the begin stays counted as a death."""
    answer = _not_ours(draft, holder)
    if answer is not None:
        return answer
    draft.note("lost", "worker_lost", evidence)
    if draft.number("deaths") >= death_limit:
        return draft.poison(death_limit, evidence)
    return _requeue(draft, Event.LOSE, holder, evidence)


def condemn(
    draft: Draft, message: Position, *, cause: bytes, code: str, category: str, text: str
) -> Decided | Held | Stale | Ended | Reused:
    """Let a message die that no attempt could decide about."""
    answer = place(draft, message, None)
    if answer is not None:
        return answer
    if draft.state is State.DEAD_LETTERED:
        return draft.decided(Decision.DEAD_LETTERED)
    if not draft.takes(Event.FAIL):
        return Ended(draft.state)
    draft.note_lost()
    draft.drop(*DECISION)
    first = draft.text("first_failure") or draft.now
    draft.set(decision=Decision.DEAD_LETTERED, decided=draft.now, first_failure=first)
    draft.set(cause=cause.decode())
    draft.note("dead_lettered", code, text)
    draft.move(Event.FAIL, code=code, category=category, error=text)
    draft.lay_down()
    return draft.decided(Decision.DEAD_LETTERED)


def _not_ours(draft: Draft, holder: str) -> Requeue | NotHeld | Decided | None:
    """The answer where this delivery has no attempt to end."""
    if draft.state in (State.DEAD_LETTERED, State.RETRYING):
        return draft.decided(Decision(draft.state.value), draft.number("due"))
    if draft.state is State.ACCEPTED and draft.text("released") == holder:
        return Requeue(draft.state)
    if draft.state is not State.RUNNING or draft.text("holder") != holder:
        return NotHeld(draft.state)
    return None


def _requeue(draft: Draft, event: Event, holder: str, evidence: str) -> Requeue:
    worker = draft.text("worker") or ""
    draft.move(event, attempt=draft.text("begins"), worker=worker, error=evidence)
    draft.set(released=holder)
    draft.save()
    draft.drop(*LEASE)
    return Requeue(draft.state)
