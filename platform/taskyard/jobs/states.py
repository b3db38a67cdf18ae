"""The state table: every state of a job, every event, and where each event leads.

This is the only place where transitions are written down. The Redis scripts receive it as
data, `docs/states.md` mirrors it, and a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["CELERY_NAMES", "LIVE", "TERMINAL", "TRANSITIONS", "Event", "State"]


class State(StrEnum):
    """The state of a job; `NONE` means that the job has no record."""

    NONE = "none"
    ACCEPTED = "accepted"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    DEAD_LETTERED = "dead_lettered"
    REROUTED = "rerouted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


class Event(StrEnum):
    """What can happen to a job."""

    ADMIT = "admit"
    BEGIN = "begin"
    COMPLETE = "complete"
    RETRY = "retry"
    RELEASE = "release"
    LOSE = "lose"
    FAIL = "fail"
    REROUTE = "reroute"
    REQUEUE = "requeue"
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"
    ABORT = "abort"
    FORCE_COMPLETE = "force_complete"
    REPLAY = "replay"
    DELETE = "delete"
    UNDELETE = "undelete"


_S, _E = State, Event

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (_S.NONE, _E.ADMIT): _S.ACCEPTED,
    (_S.NONE, _E.BEGIN): _S.RUNNING,
    (_S.NONE, _E.FAIL): _S.DEAD_LETTERED,
    (_S.NONE, _E.REROUTE): _S.REROUTED,
    (_S.NONE, _E.CANCEL): _S.CANCELLED,
    (_S.NONE, _E.ABORT): _S.ABORTED,
    (_S.NONE, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.NONE, _E.REPLAY): _S.ACCEPTED,
    (_S.ACCEPTED, _E.BEGIN): _S.RUNNING,
    (_S.ACCEPTED, _E.FAIL): _S.DEAD_LETTERED,
    (_S.ACCEPTED, _E.REROUTE): _S.REROUTED,
    (_S.ACCEPTED, _E.CANCEL): _S.CANCELLED,
    (_S.ACCEPTED, _E.ABORT): _S.ABORTED,
    (_S.ACCEPTED, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.RUNNING, _E.BEGIN): _S.RUNNING,
    (_S.RUNNING, _E.COMPLETE): _S.COMPLETED,
    (_S.RUNNING, _E.RETRY): _S.RETRYING,
    (_S.RUNNING, _E.RELEASE): _S.ACCEPTED,
    (_S.RUNNING, _E.LOSE): _S.ACCEPTED,
    (_S.RUNNING, _E.FAIL): _S.DEAD_LETTERED,
    (_S.RUNNING, _E.REROUTE): _S.REROUTED,
    (_S.RUNNING, _E.REQUEST_CANCEL): _S.RUNNING,
    (_S.RUNNING, _E.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _E.ABORT): _S.ABORTED,
    (_S.RUNNING, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.RETRYING, _E.BEGIN): _S.RUNNING,
    (_S.RETRYING, _E.FAIL): _S.DEAD_LETTERED,
    (_S.RETRYING, _E.REROUTE): _S.REROUTED,
    (_S.RETRYING, _E.CANCEL): _S.CANCELLED,
    (_S.RETRYING, _E.ABORT): _S.ABORTED,
    (_S.RETRYING, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.REROUTED, _E.REQUEUE): _S.ACCEPTED,
    (_S.REROUTED, _E.FAIL): _S.DEAD_LETTERED,
    (_S.REROUTED, _E.REROUTE): _S.REROUTED,
    (_S.REROUTED, _E.CANCEL): _S.CANCELLED,
    (_S.REROUTED, _E.ABORT): _S.ABORTED,
    (_S.REROUTED, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.DEAD_LETTERED, _E.REPLAY): _S.ACCEPTED,
    (_S.DEAD_LETTERED, _E.DELETE): _S.FAILED,
    (_S.DEAD_LETTERED, _E.CANCEL): _S.CANCELLED,
    (_S.DEAD_LETTERED, _E.ABORT): _S.ABORTED,
    (_S.DEAD_LETTERED, _E.FORCE_COMPLETE): _S.COMPLETED,
    (_S.FAILED, _E.UNDELETE): _S.DEAD_LETTERED,
    (_S.CANCELLED, _E.CANCEL): _S.CANCELLED,
}

TERMINAL: Final = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.ABORTED})
LIVE: Final = frozenset(State) - TERMINAL - {_S.NONE}

CELERY_NAMES: Final[dict[State, str]] = {
    _S.NONE: "PENDING",
    _S.ACCEPTED: "PENDING",
    _S.RUNNING: "STARTED",
    _S.RETRYING: "RETRY",
    _S.COMPLETED: "SUCCESS",
    _S.DEAD_LETTERED: "FAILURE",
    _S.REROUTED: "PENDING",
    _S.FAILED: "FAILURE",
    _S.CANCELLED: "REVOKED",
    _S.ABORTED: "REVOKED",
}
