"""How a life or a generation of a job begins: admission and replay."""

from __future__ import annotations

from taskyard.errors import Refused
from taskyard.jobs.states import TERMINAL, Event, State
from taskyard.records import Admitted, Replayed
from taskyard.testing.draft import Draft, Position

__all__ = ["admit", "replay", "witness"]


def admit(draft: Draft, message: Position, unique_for_us: int, call: str) -> Admitted:
    """A new life, or the one that the id already has; `created` for the call that made it."""
    if call and draft.text("call") == call:
        return _admitted(draft, created=True)
    ended = draft.state in TERMINAL and draft.now >= draft.number("unique_until")
    if draft.state is not State.NONE and not ended:
        return _admitted(draft, created=False)
    # A second life of the same id must sort after the first.
    epoch = max(draft.now, draft.number("epoch") + 1)
    token = draft.text("token")
    draft.clear()
    draft.birth(message, epoch)
    draft.set(token=token, unique_until=draft.now + unique_for_us, call=call or None)
    draft.shelf.deliveries.pop(draft.job_id, None)
    facts = {"type": message.job_type, "queue": message.queue, "priority": message.priority}
    draft.move(Event.ADMIT, **facts)
    draft.save()
    return _admitted(draft, created=True)


def witness(draft: Draft, message: Position, *, published: bool, window_us: int) -> bool:
    """The record of a job that its producer published itself, unless it has one."""
    if draft.state is not State.NONE:
        # Only what a failed publication left ends by itself without being a tombstone.
        if published and draft.state is State.ACCEPTED and draft.shelf.ends(draft.job_id):
            draft.patch(published=1)
            draft.shelf.end_at(draft.job_id, None)
        return False
    draft.birth(message, draft.now)
    draft.drop("priority")
    draft.set(published=int(published))
    draft.move(Event.ADMIT, type=message.job_type, queue=message.queue)
    draft.save()
    if not published:
        draft.shelf.end_at(draft.job_id, draft.now + window_us)
    return True


def _admitted(draft: Draft, *, created: bool) -> Admitted:
    return Admitted(
        created=created,
        state=draft.state,
        epoch=draft.number("epoch"),
        generation=draft.number("generation"),
        seq=draft.number("seq"),
        published=draft.text("published") == "1",
    )


def replay(draft: Draft, message: Position, epoch: int, request_id: str) -> Replayed:
    """The generation after the letter's; raises `Refused` with what stands in the way."""
    if draft.text("request") == request_id:
        return Replayed(draft.number("generation"), 0, already=True, now_us=draft.now)
    earlier = draft.number("epoch") < epoch and draft.state in TERMINAL
    if draft.state is State.NONE or earlier:
        token = draft.text("token")
        draft.clear()
        draft.reborn(message)
        draft.set(token=token)
    _check(draft, epoch, message.generation)
    if draft.number("generation") < message.generation:
        draft.skip_versions()
    draft.open_generation(message.generation + 1)
    priority = "" if message.priority is None else message.priority
    draft.set(queue=message.queue, priority=priority, request=request_id)
    draft.move(Event.REPLAY, type=draft.text("type") or message.job_type, queue=message.queue)
    draft.save()
    draft.shelf.end_at(draft.job_id, None)
    draft.shelf.drop_result(draft.job_id)
    return Replayed(draft.number("generation"), 0, already=False, now_us=draft.now)


def _check(draft: Draft, epoch: int, generation: int) -> None:
    why = ""
    if draft.number("epoch") != epoch:
        why = f"the job has another life, {draft.number('epoch')}; this letter is of {epoch}"
    elif draft.number("generation") > generation:
        why = f"the job is already at generation {draft.number('generation')}"
    elif not draft.takes(Event.REPLAY):
        why = f"the job is {draft.state}"
    if why:
        raise Refused(f"job {draft.job_id} was not replayed: {why}")
