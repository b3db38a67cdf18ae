"""Whether operators' verbs had the effect that the audit log says, judged one job at a time.

Five witnesses must agree: the audit rows, the ledger's events, the record, the effects and the
replies that the job's service got.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from taskyard.access import Action
from taskyard.audit import Outcome
from taskyard.jobs.states import Event, State

__all__ = ["OPERATED_ENDS", "Done", "Effect", "History", "Reply", "Row", "unanswered", "wrongs"]

_ENDING: Final = {
    Action.CANCEL_REQUEST: (Event.CANCEL, State.CANCELLED),
    Action.ABORT_REQUEST: (Event.ABORT, State.ABORTED),
    Action.FORCE_COMPLETE: (Event.FORCE_COMPLETE, State.COMPLETED),
}
_MOVING: Final = {Action.MANUAL_REROUTE: Event.REROUTE, Action.CONTROLLED_REPLAY: Event.REPLAY}
_ENDS: Final = (Event.COMPLETE, Event.FORCE_COMPLETE, Event.CANCEL, Event.ABORT)
OPERATED_ENDS: Final = (Event.FORCE_COMPLETE, Event.CANCEL, Event.ABORT)
"""The events by which an operator ends a job."""
# An attempt that has one of these next in the ledger has its outcome there.
_OUTCOMES: Final = (Event.COMPLETE, Event.RETRY, Event.FAIL)
# An attempt that has one of these next was stopped by an operator.
_STOPS: Final = (*OPERATED_ENDS, Event.REROUTE)


@dataclass(frozen=True, slots=True)
class Done:
    """One event of the ledger; `at` in seconds since 1970, `token` that of a begin."""

    event: Event
    at: float = 0.0
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One audit row, in the order in which they were written."""

    request: uuid.UUID
    action: Action
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """Whether it says that the verb was carried out."""
        return self.outcome == Outcome.APPLIED


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect and the fencing token of the attempt that had it, None where it has none."""

    at: float
    token: int | None
    inbox: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that the job's service got."""

    message_id: str
    state: str


@dataclass(frozen=True, slots=True)
class History:
    """All that is known of one job; `replies` is None where its service waits for none."""

    state: State
    events: Sequence[Done] = ()
    rows: Sequence[Row] = ()
    effects: Sequence[Effect] = ()
    replies: Sequence[Reply] | None = None

    @property
    def ended_by_operator(self) -> bool:
        """Whether the ledger says that an operator ended it."""
        return any(done.event in OPERATED_ENDS for done in self.events)


def wrongs(job: History) -> Iterator[str]:
    """What disagrees, one text each; none if everything is as the audit log says."""
    yield from unanswered(job.rows)
    yield from _endings(job)
    yield from _moves(job)
    yield from _effects(job)
    if job.replies is not None:
        yield from _replies(job, job.replies)


def unanswered(rows: Sequence[Row]) -> Iterator[str]:
    """What is wrong with the rows of each request: it has one answer, after the request."""
    outcomes: dict[uuid.UUID, list[str]] = {}
    for row in rows:
        outcomes.setdefault(row.request, []).append(row.outcome)
    for request, found in outcomes.items():
        requested = found.count(Outcome.REQUESTED)
        answers = len(found) - requested
        # A verb that is refused at once has one row.
        if requested > 1 or (requested and found[0] != Outcome.REQUESTED):
            yield f"the request {request} has the rows {found}"
        elif answers != 1:
            yield f"the request {request} has {answers} answers: {found}"


def _endings(job: History) -> Iterator[str]:
    names = [done.event for done in job.events]
    ends = [name for name in names if name in _ENDS]
    if len(ends) > 1:
        yield f"it ended more than once: {_joined(ends)}"
    if ends and names[-1] not in _ENDS:
        yield f"it went on after its end: {_joined(names[names.index(ends[0]) :])}"
    applied = Counter(row.action for row in job.rows if row.applied)
    for action, (event, state) in _ENDING.items():
        if applied[action] and (event not in ends or job.state is not state):
            yield f"{action} was applied, and the job is {job.state}: {_joined(names)}"
        if event in ends and not applied[action]:
            yield f"it ended by {event}, and no {action} was applied"


def _moves(job: History) -> Iterator[str]:
    applied = Counter(row.action for row in job.rows if row.applied)
    happened = Counter(done.event for done in job.events)
    for action, event in _MOVING.items():
        if applied[action] != happened[event]:
            yield f"{applied[action]} {action} were applied, and the ledger has {happened[event]}"


def _effects(job: History) -> Iterator[str]:
    """Of a job that an operator has cancelled or aborted: none, or that of a superseded attempt."""
    begun = _attempts(job.events)
    tokens = Counter(effect.token for effect in job.effects if not effect.inbox)
    for token, count in tokens.items():
        if token is not None and count > 1:
            yield f"the attempt with the token {token} had its effect {count} times"
    if job.state not in {State.CANCELLED, State.ABORTED}:
        return
    for effect in job.effects:
        makers = [
            (begin, after)
            for begin, after in begun
            if begin.at <= effect.at
            if effect.token is None or effect.token == begin.token
        ]
        superseded = [after for _, after in makers if after is None or after not in _OUTCOMES]
        if not superseded:
            yield f"it is {job.state}, and no attempt without an outcome had its effect: {effect}"
        elif superseded[-1] in _STOPS and not _reported(job.rows):
            yield f"it is {job.state}, and no audit row says what became of its attempt"


def _attempts(events: Sequence[Done]) -> list[tuple[Done, Event | None]]:
    """Each begin with the event that came next, other than a request to cancel."""
    history = [done for done in events if done.event is not Event.REQUEST_CANCEL]
    pairs = [(done, after.event) for done, after in pairwise(history) if done.event is Event.BEGIN]
    last = [(done, None) for done in history[-1:] if done.event is Event.BEGIN]
    return [*pairs, *last]


def _reported(rows: Sequence[Row]) -> bool:
    return any(row.applied and row.detail.get("attempt") for row in rows)


def _replies(job: History, replies: Sequence[Reply]) -> Iterator[str]:
    ended = job.ended_by_operator
    found = {reply.message_id for reply in replies}
    if len(found) != int(ended):
        by = " by an operator" if ended else ""
        yield f"it is {job.state}{by}, and its service got {len(found)} replies"
    known = {str(uuid.uuid5(row.request, "reply")) for row in job.rows if row.applied}
    wrong = [one for one in replies if one.message_id not in known or one.state != job.state]
    if wrong:
        yield f"it is {job.state}, and its service got a reply of another request: {wrong[0]}"


def _joined(events: Sequence[Event]) -> str:
    return ", ".join(events)
