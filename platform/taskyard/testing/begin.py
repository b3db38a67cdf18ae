"""The right to run one attempt, as the script `begin` grants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taskyard.jobs.outcomes import Decision
from taskyard.jobs.states import Event, State
from taskyard.records import BeginAnswer, Decided, Done, Ended, Run, UnknownHistory
from taskyard.settings import Settings
from taskyard.testing.draft import DECISION, LEASE_EXPIRED, Draft, Position
from taskyard.testing.place import place

__all__ = ["Caller", "begin", "lease_end"]

_US: Final = 1_000_000
_PROCESS_GONE: Final = "its process was gone before the worker knew that it had begun"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a delivery, in a process, of a worker."""

    holder: str
    process: str
    worker: str


def begin(
    draft: Draft,
    settings: Settings,
    message: Position,
    *,
    sent_us: int,
    caller: Caller,
) -> BeginAnswer:
    """Run, or the reason why not."""
    window_us = settings.dedupe_window_s * _US
    if draft.state is State.NONE and 0 < sent_us < draft.now - window_us:
        return UnknownHistory()
    answer = place(draft, message, caller.holder) or _refusal(draft)
    if answer is not None:
        return answer
    same = draft.state is State.RUNNING and draft.text("holder") == caller.holder
    if same and draft.text("process") == caller.process:
        # The same process asks again: its first answer was lost on the way.
        draft.patch(lease_until=lease_end(draft, settings))
        return _run(draft)
    # Another process with the same delivery: the first one died, and the pool handed the job on.
    code, evidence = ("worker_lost", _PROCESS_GONE) if same else ("lease_expired", LEASE_EXPIRED)
    draft.note_lost(code, evidence)
    if draft.number("deaths") >= settings.death_limit:
        return draft.poison(settings.death_limit, evidence)
    _start(draft, message, caller)
    draft.set(lease_until=lease_end(draft, settings))
    draft.save()
    # What a failed publication left would end by itself.
    draft.shelf.end_at(draft.job_id, None)
    return _run(draft)


def lease_end(draft: Draft, settings: Settings) -> int:
    """When a lease that is taken or renewed now runs out."""
    return draft.now + int(settings.lease_s * _US)


def _refusal(draft: Draft) -> Done | Decided | Ended | None:
    """Why a message that is level with its job does not run."""
    match draft.state:
        case State.COMPLETED:
            return Done(draft.shelf.result(draft.job_id))
        case State.DEAD_LETTERED:
            return draft.decided(Decision.DEAD_LETTERED)
        case state if not draft.takes(Event.BEGIN):
            return Ended(state)
    return None


def _start(draft: Draft, message: Position, caller: Caller) -> None:
    draft.drop(*DECISION, "released")
    told = {"type": message.job_type, "queue": message.queue, "priority": message.priority}
    draft.set(**{name: value for name, value in told.items() if not draft.text(name)})
    draft.set(
        token=max(draft.number("token") + 1, draft.now),
        begins=draft.number("begins") + 1,
        deaths=draft.number("deaths") + 1,
        attempts=draft.number("attempts"),
        # The message has reached a worker that could begin it; from here on deaths are counted.
        deliveries=0,
        holder=caller.holder,
        process=caller.process,
        worker=caller.worker,
        started=draft.now,
        published=1,
    )
    draft.move(
        Event.BEGIN, attempt=draft.text("begins"), worker=caller.worker, token=draft.text("token")
    )


def _run(draft: Draft) -> Run:
    return Run(
        attempt=draft.number("begins"),
        token=draft.number("token"),
        epoch=draft.number("epoch"),
        generation=draft.number("generation"),
        seq=draft.number("seq"),
        attempts=draft.number("attempts"),
        cancel=draft.text("cancel") or "",
    )
