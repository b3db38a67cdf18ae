"""Why an operator's verb on a live job is refused, and what to do instead: one text for all."""

from __future__ import annotations

from typing import Final

from taskyard.jobs.states import TERMINAL, Event, State

__all__ = ["refusal_text"]

_DONE_TO: Final = {
    Event.CANCEL: "cancelled",
    Event.ABORT: "aborted",
    Event.FORCE_COMPLETE: "completed by hand",
    Event.REROUTE: "rerouted",
}
_OBSTACLES: Final = {
    "queue": "it is in that queue already. Its place: taskyard jobs show {job_id}",
    "cancel": (
        "it is being cancelled: its attempt was asked to stop. Wait for the end: taskyard jobs "
        "show {job_id}"
    ),
    "unpublished": (
        "the broker has not confirmed its first message. Ask again in a moment; if its producer "
        "has died: taskyard reconcile"
    ),
    "observed": (
        "its worker only observes the task, so Celery alone decides about its message. Ask again "
        "when the attempt has ended, or protect the task"
    ),
}
_CHANGED: Final = {
    "epoch": "another job has its id now (it was enqueued again)",
    "generation": "it was replayed or rerouted meanwhile",
    "version": "it has changed meanwhile",
}


def refusal_text(event: Event, job_id: str, why: str, state: State) -> str:
    """Return the refusal of `event`: the rule that forbids it, then the remedy.

    `why` is `state`, or the part of the job's position that differs from what the operator saw:
    `epoch`, `generation` or `version`; of a reroute also `queue`, `cancel`, `unpublished` or
    `observed`. Nothing was changed.
    """
    act = _DONE_TO[event]
    if why in _OBSTACLES:
        return f"job {job_id} was not {act}: {_OBSTACLES[why].format(job_id=job_id)}"
    if why != "state":
        return (
            f"job {job_id} was not {act}, because it is not the job that was asked for: "
            f"{_CHANGED[why]}, and is {state} now. Look at it, then ask again: taskyard jobs show "
            f"{job_id}"
        )
    return f"job {job_id} is {state}, so it cannot be {act}. {_remedy(event, job_id, state)}"


def _remedy(event: Event, job_id: str, state: State) -> str:
    if state is State.DEAD_LETTERED and event is Event.REROUTE:
        return (
            "Replay its dead letter into the other queue: taskyard dlq replay LETTER --queue "
            f"QUEUE. The letter's id: taskyard jobs show {job_id}"
        )
    if state in TERMINAL:
        return "A job that has ended stays as it is. To run it again, enqueue it under another id"
    return f"Look at it: taskyard jobs show {job_id}"
