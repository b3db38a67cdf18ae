"""Where a message finds its job: behind the record, level with it, or ahead of it."""

from __future__ import annotations

from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import TERMINAL, Event, State
from taskyard.records import Decided, Held, Reused, Stale
from taskyard.testing.draft import Draft, Position

__all__ = ["place"]


def place(
    draft: Draft, message: Position, holder: str | None
) -> Decided | Held | Stale | Reused | None:
    """Bring the draft to where the message is; an answer settles the message instead."""
    if draft.state is State.NONE:
        draft.reborn(message)
        return None
    known = draft.text("type")
    if message.epoch is None and message.job_type and known and known != message.job_type:
        return Reused(known, draft.state, draft.number("epoch"))
    # A message of a plain producer carries no stamp: it belongs to the life there is.
    epoch = draft.number("epoch") if message.epoch is None else message.epoch
    there = (epoch, message.generation, message.seq)
    here = (draft.number("epoch"), draft.number("generation"), draft.number("seq"))
    if there < here:
        return _behind(draft, there, here)
    remaining = draft.number("lease_until") - draft.now
    if draft.state is State.RUNNING and remaining > 0 and draft.text("holder") != holder:
        return Held(remaining)
    if there > here:
        _ahead(draft, message, epoch)
    return None


def _behind(
    draft: Draft, there: tuple[int, int, int], here: tuple[int, int, int]
) -> Decided | Stale:
    """Stale; or the retry that this very message led to, which may never have been published."""
    led_here = there[:2] == here[:2] and there[2] == here[2] - 1
    if led_here and draft.state is State.RETRYING:
        return draft.decided(Decision.RETRYING, draft.number("due"))
    return Stale(draft.state)


def _ahead(draft: Draft, message: Position, epoch: int) -> None:
    """The record forgot, and the message proves the later position; what has ended stays so."""
    if epoch > draft.number("epoch"):
        token = draft.text("token")
        draft.clear()
        draft.reborn(message)
        draft.set(token=token)
        return
    later = message.generation > draft.number("generation")
    dead = draft.state is State.DEAD_LETTERED
    if draft.state in TERMINAL or (dead and not later):
        return
    draft.skip_versions()
    if draft.state is State.REROUTED:
        draft.move(Event.REQUEUE)
    if later:
        draft.open_generation(message.generation)
        if dead:
            draft.move(Event.REPLAY)
    draft.set(
        seq=message.seq,
        attempts=max(draft.number("attempts"), message.seq),
        begins=max(draft.number("begins"), message.seq),
    )
