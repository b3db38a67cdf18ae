"""What a purge does with one message, in every situation of its job: cancel, drop or leave it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.broker import WaitingMessage
from taskyard.control.purge_outcome import Drop, Keep
from taskyard.control.purge_rules import Cancel, Treatment, treat
from taskyard.jobs.states import LIVE, TERMINAL, State
from taskyard.records import Record, VerbTarget

JOB, EPOCH, BEGAN = "j", 1_000_000, 2_000_000
NOTHING = [[], {}, {"callbacks": None, "chain": None, "chord": None}]


def message(
    place: tuple[int, int, int] | None, body: Any = NOTHING, **headers: Any
) -> WaitingMessage:
    stamp = None
    if place is not None:
        epoch, generation, seq = place
        stamp = {"v": 1, "epoch": epoch, "generation": generation, "seq": seq}
    own = {} if stamp is None else {"taskyard": stamp}
    given_headers = {"id": JOB, "task": "t", **own, **headers}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WaitingMessage(given_headers, {}, raw, None)


def record(state: State, generation: int = 1, seq: int = 1, **fields: str) -> Record:
    place = {"epoch": str(EPOCH), "generation": str(generation), "seq": str(seq)}
    facts = {"state": state.value, "type": "t", "queue": "q", **place, **fields}
    return Record(JOB, {} if state is State.NONE else facts)


def treated(found: WaitingMessage, known: Record) -> Treatment:
    return treat(found, known, "q", BEGAN)


AS_SEEN = Cancel(VerbTarget(JOB, EPOCH, 1, None, "t", "q"))
WHATEVER = Cancel(VerbTarget(JOB, None, None, None, "t", "q"))
HERE, BEFORE, FORMER = (EPOCH, 1, 1), (EPOCH, 1, 0), (EPOCH, 0, 3)
NEWER, NEXT_LIFE = (EPOCH, 2, 0), (EPOCH + 5, 0, 0)


@pytest.mark.parametrize(
    ("state", "place", "expected"),
    [
        (State.ACCEPTED, HERE, AS_SEEN),
        (State.ACCEPTED, BEFORE, Drop.STALE),
        (State.ACCEPTED, FORMER, Drop.STALE),
        (State.ACCEPTED, NEWER, WHATEVER),
        (State.RUNNING, HERE, AS_SEEN),
        (State.RUNNING, BEFORE, Drop.STALE),
        (State.RETRYING, HERE, AS_SEEN),
        (State.RETRYING, BEFORE, AS_SEEN),
        (State.RETRYING, FORMER, Drop.STALE),
        (State.REROUTED, HERE, AS_SEEN),
        (State.DEAD_LETTERED, HERE, Keep.LETTER),
        (State.DEAD_LETTERED, BEFORE, Keep.LETTER),
        (State.DEAD_LETTERED, FORMER, Drop.STALE),
        (State.DEAD_LETTERED, NEWER, WHATEVER),
        (State.COMPLETED, HERE, Drop.ENDED),
        (State.COMPLETED, NEWER, Drop.ENDED),
        (State.COMPLETED, BEFORE, Drop.STALE),
        (State.CANCELLED, HERE, Drop.ENDED),
        (State.ABORTED, HERE, Drop.ENDED),
        (State.FAILED, HERE, Drop.ENDED),
        (State.CANCELLED, NEXT_LIFE, Cancel(VerbTarget(JOB, EPOCH + 5, 0, None, "", "q"))),
        (State.NONE, HERE, Cancel(VerbTarget(JOB, EPOCH, 1, None, "t", "q"))),
        (State.NONE, None, Cancel(VerbTarget(JOB, None, None, None, "t", "q"))),
    ],
)
def test_the_position_and_the_state_decide(
    state: State, place: tuple[int, int, int] | None, expected: Treatment
) -> None:
    assert treated(message(place), record(state)) == expected


def test_a_moved_jobs_old_message_stays_and_an_older_one_is_stale() -> None:
    moved = record(State.REROUTED, 2, 0, moved_from=f"{EPOCH}:1:1")
    assert treated(message(HERE), moved) is Keep.MOVED
    assert treated(message(BEFORE), moved) is Drop.STALE


def test_a_moved_job_that_has_ended_may_find_its_message_where_it_was() -> None:
    ended = record(State.COMPLETED, 2, 0, moved_from=f"{EPOCH}:1:1")
    follows = [[], {}, {"chain": [{"task": "next"}]}]
    assert treated(message(HERE), ended) is Drop.ENDED
    assert treated(message(HERE, follows), ended) is Keep.CONTINUES


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (NOTHING, Drop.ENDED),
        ([[], {}, {"callbacks": [{"task": "next"}]}], Keep.CONTINUES),
        ([[], {}, {"chord": {"task": "next"}}], Keep.CONTINUES),
        (b"\x80\x04N.", Keep.CONTINUES),
        ([1, 2], Keep.CONTINUES),
    ],
)
def test_what_follows_a_completed_job_is_not_lost(body: Any, expected: Treatment) -> None:
    assert treated(message(HERE, body), record(State.COMPLETED)) is expected


def test_a_message_without_a_stamp_belongs_to_the_life_that_the_record_knows() -> None:
    assert treated(message(None), record(State.ACCEPTED, 0, 0)) == Cancel(
        VerbTarget(JOB, EPOCH, 0, None, "t", "q")
    )
    assert treated(message(None), record(State.ACCEPTED, 1, 0)) is Drop.STALE
    retried = message(None, retries=2)
    assert isinstance(treated(retried, record(State.RETRYING, 0, 2)), Cancel)
    assert treated(message(None, retries=0), record(State.RETRYING, 0, 2)) is Drop.STALE


def test_a_message_with_the_id_of_a_job_of_another_type_is_no_message_of_it() -> None:
    assert treated(message(None, task="other"), record(State.ACCEPTED, 0, 0)) is Drop.NO_JOB
    replacing = message(None, task="other", replaced_task_nesting=1)
    assert isinstance(treated(replacing, record(State.RUNNING, 0, 0)), Cancel)


@pytest.mark.parametrize("late", [{"epoch": BEGAN + 1}, {"epoch": EPOCH, "sent_us": BEGAN + 1}])
def test_what_was_published_after_the_start_stays(late: dict[str, int]) -> None:
    found = message(None, taskyard={"v": 1, "generation": 1, "seq": 1, **late})
    assert treated(found, record(State.ACCEPTED)) is Keep.LATER


PLACES = st.tuples(st.integers(EPOCH - 1, EPOCH + 1), st.integers(0, 2), st.integers(0, 2))


@given(
    st.sampled_from(sorted(State)),
    st.one_of(st.none(), PLACES),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_only_messages_that_a_worker_would_skip_are_dropped(
    state: State, place: tuple[int, int, int] | None, generation: int, seq: int
) -> None:
    """Dropped is what is older than a live job's record, or whose job has ended."""
    known = record(state, generation, seq)
    answer = treated(message(place), known)
    at = (EPOCH, 0, 0) if place is None else place
    if isinstance(answer, Drop):
        assert state in TERMINAL or at < (EPOCH, generation, seq), (answer, known.fields)
    if isinstance(answer, Cancel):
        assert state in LIVE | {State.NONE} or at[0] > EPOCH
