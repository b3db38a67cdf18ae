"""What the auditor says of operators' verbs: nothing of a right history, and each wrong one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from chaos.letters import Letter, misplaced
from chaos.verbs import Done, Effect, History, Reply, Row, wrongs

from taskyard.access import Action
from taskyard.jobs.states import Event, State

REQUEST, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
STOPPED = {"attempt": "was stopped"}


def rows(
    action: Action, *outcomes: str, request: uuid.UUID = REQUEST, detail: Any = None
) -> tuple[Row, ...]:
    return tuple(Row(request, action, outcome, detail or {}) for outcome in outcomes)


def events(*names: str, token: int = 7) -> tuple[Done, ...]:
    """Events a second apart, from second 0; each begin has the next token."""
    begun, found = token - 1, []
    for at, name in enumerate(names):
        begun += name == "begin"
        found.append(Done(Event(name), float(at), begun if name == "begin" else None))
    return tuple(found)


def reply(state: str, request: uuid.UUID = REQUEST) -> Reply:
    return Reply(str(uuid.uuid5(request, "reply")), state)


CANCELLED = History(
    State.CANCELLED,
    events("admit", "cancel"),
    rows(Action.CANCEL_REQUEST, "requested", "applied"),
    replies=[reply("cancelled")],
)
ABORTED = History(
    State.ABORTED,
    events("admit", "begin", "abort"),
    rows(Action.ABORT_REQUEST, "requested", "applied", detail=STOPPED),
    [Effect(1.5, 7, inbox=True), Effect(1.6, 7, inbox=False)],
    [reply("aborted")],
)
COMPLETED = History(
    State.COMPLETED,
    events("admit", "begin", "complete"),
    rows(Action.CANCEL_REQUEST, "requested", "refused: too late"),
    [Effect(1.5, 7, inbox=True), Effect(1.6, 7, inbox=False)],
    [],
)
FORCED = History(
    State.COMPLETED,
    events("admit", "force_complete"),
    rows(Action.FORCE_COMPLETE, "requested", "applied"),
    replies=[reply("completed")],
)
REROUTED = History(
    State.COMPLETED,
    events("admit", "reroute", "requeue", "begin", "complete"),
    rows(Action.MANUAL_REROUTE, "requested", "applied"),
    [Effect(3.5, 7, inbox=True)],
    [],
)
REPLAYED = History(
    State.DEAD_LETTERED,
    events("admit", "begin", "fail", "replay", "begin", "fail"),
    rows(Action.CONTROLLED_REPLAY, "requested", "applied"),
)


@pytest.mark.parametrize(
    "job",
    [
        CANCELLED,
        ABORTED,
        COMPLETED,
        FORCED,
        REROUTED,
        REPLAYED,
        # Of two requests one ends the job, and the other one finds it ended.
        replace(
            CANCELLED,
            rows=CANCELLED.rows
            + rows(Action.CANCEL_REQUEST, "requested", "applied", request=OTHER),
        ),
        # Refused before anything was requested.
        replace(COMPLETED, rows=rows(Action.ABORT_REQUEST, "refused: it has ended")),
        # A relay that was killed publishes the reply again, with the same message id.
        replace(ABORTED, replies=[reply("aborted")] * 2),
        # The first attempt lost its lease after its effect, and the next one was asked to stop.
        replace(
            ABORTED,
            events=events("admit", "begin", "begin", "request_cancel", "abort"),
        ),
        # A job whose attempt was stopped before its effect.
        replace(ABORTED, effects=()),
        # An app's effects carry no token.
        replace(ABORTED, effects=[Effect(1.5, None, inbox=True)]),
        # Each attempt has its effect without an inbox.
        replace(
            COMPLETED,
            events=events("admit", "begin", "begin", "complete"),
            effects=[Effect(1.5, 7, inbox=False), Effect(2.5, 8, inbox=False)],
        ),
    ],
)
def test_of_a_right_history_it_says_nothing(job: History) -> None:
    assert list(wrongs(job)) == []


@pytest.mark.parametrize(
    ("job", "wrong"),
    [
        (
            replace(COMPLETED, rows=rows(Action.CANCEL_REQUEST, "requested")),
            f"the request {REQUEST} has 0 answers",
        ),
        (
            replace(
                COMPLETED,
                rows=rows(Action.CANCEL_REQUEST, "requested", "refused: late", "refused: late"),
            ),
            f"the request {REQUEST} has 2 answers",
        ),
        (
            replace(
                COMPLETED,
                rows=rows(Action.CANCEL_REQUEST, "requested", "requested", "refused: late"),
            ),
            f"the request {REQUEST} has the rows ['requested', 'requested'",
        ),
        (
            replace(COMPLETED, rows=rows(Action.CANCEL_REQUEST, "refused: late", "requested")),
            f"the request {REQUEST} has the rows ['refused: late', 'requested']",
        ),
        (
            replace(CANCELLED, events=events("admit", "begin", "complete", "cancel")),
            "it ended more than once: complete, cancel",
        ),
        (
            replace(CANCELLED, events=events("admit", "cancel", "begin")),
            "it went on after its end: cancel, begin",
        ),
        (
            replace(COMPLETED, rows=rows(Action.CANCEL_REQUEST, "requested", "applied")),
            "cancel_request was applied, and the job is completed: admit, begin, complete",
        ),
        (
            replace(CANCELLED, state=State.COMPLETED),
            "cancel_request was applied, and the job is completed: admit, cancel",
        ),
        (
            replace(CANCELLED, rows=rows(Action.CANCEL_REQUEST, "requested", "refused: no")),
            "it ended by cancel, and no cancel_request was applied",
        ),
        (
            replace(REROUTED, rows=rows(Action.MANUAL_REROUTE, "requested", "refused: no")),
            "0 manual_reroute were applied, and the ledger has 1",
        ),
        (
            replace(REPLAYED, events=events("admit", "begin", "fail")),
            "1 controlled_replay were applied, and the ledger has 0",
        ),
        (
            replace(CANCELLED, effects=[Effect(2.5, None, inbox=True)]),
            "it is cancelled, and no attempt without an outcome had its effect",
        ),
        # Its only attempt has its outcome in the ledger, so it was not superseded.
        (
            replace(
                CANCELLED,
                events=events("admit", "begin", "retry", "cancel"),
                effects=[Effect(1.5, 7, inbox=True)],
            ),
            "it is cancelled, and no attempt without an outcome had its effect",
        ),
        # No attempt has that token.
        (
            replace(ABORTED, effects=[Effect(1.5, 9, inbox=False)]),
            "it is aborted, and no attempt without an outcome had its effect",
        ),
        # It began after the effect.
        (
            replace(ABORTED, effects=[Effect(0.5, 7, inbox=True)]),
            "it is aborted, and no attempt without an outcome had its effect",
        ),
        (
            replace(ABORTED, rows=rows(Action.ABORT_REQUEST, "requested", "applied")),
            "it is aborted, and no audit row says what became of its attempt",
        ),
        (
            replace(COMPLETED, effects=[Effect(1.5, 7, inbox=False)] * 2),
            "the attempt with the token 7 had its effect 2 times",
        ),
        (
            replace(CANCELLED, replies=[]),
            "it is cancelled by an operator, and its service got 0 replies",
        ),
        (
            replace(CANCELLED, replies=[reply("cancelled"), reply("cancelled", OTHER)]),
            "it is cancelled by an operator, and its service got 2 replies",
        ),
        (
            replace(COMPLETED, replies=[reply("cancelled")]),
            "it is completed, and its service got 1 replies",
        ),
        (
            replace(CANCELLED, replies=[reply("cancelled", OTHER)]),
            "its service got a reply of another request",
        ),
        (
            replace(CANCELLED, replies=[reply("aborted")]),
            "its service got a reply of another request",
        ),
    ],
)
def test_each_wrong_history_is_named(job: History, wrong: str) -> None:
    assert any(wrong in text for text in wrongs(job)), list(wrongs(job))


@pytest.mark.parametrize(
    ("generation", "status", "state"),
    [
        (2, "pending", State.DEAD_LETTERED),
        (2, "manual_review", State.DEAD_LETTERED),
        (1, "replayed", State.ACCEPTED),
        (1, "replayed", State.CANCELLED),
        (2, "cancelled", State.CANCELLED),
        (2, "cancelled", State.ABORTED),
        (2, "completed", State.COMPLETED),
    ],
)
def test_a_letter_that_fits_its_job_is_no_difference(
    generation: int, status: str, state: State
) -> None:
    assert misplaced(Letter("a", "job", generation, status), state, 2) == ""


@pytest.mark.parametrize(
    ("generation", "status", "state"),
    [
        (2, "pending", State.CANCELLED),
        (2, "pending", State.COMPLETED),
        (1, "pending", State.DEAD_LETTERED),
        (1, "cancelled", State.CANCELLED),
        (2, "replayed", State.DEAD_LETTERED),
        (2, "cancelled", State.COMPLETED),
        (3, "pending", State.DEAD_LETTERED),
    ],
)
def test_a_letter_that_does_not_fit_its_job_is_named(
    generation: int, status: str, state: State
) -> None:
    found = misplaced(Letter("a", "job", generation, status), state, 2)
    assert found == (
        f"it is {status} in generation {generation}, and job job is {state} in generation 2"
    )
