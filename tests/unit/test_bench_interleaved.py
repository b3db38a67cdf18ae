"""Turns alternate, and stop when the time is up."""

from bench.contenders import CELERY, NAIVE_LOCK, TASKYARD, Contender
from bench.deadline import Deadline
from bench.interleaved import LEAST_ROUNDS, interleaved, order

from taskyard.clock import SYSTEM_CLOCK

LONG_S = 3600.0


def test_every_second_round_runs_backwards() -> None:
    three = (TASKYARD, CELERY, NAIVE_LOCK)
    assert order(three, 0) == three
    assert order(three, 1) == (NAIVE_LOCK, CELERY, TASKYARD)
    assert order(three, 2) == three


def test_turns_run_in_that_order_and_are_kept_by_name() -> None:
    ran: list[str] = []

    def measure(contender: Contender) -> int:
        ran.append(contender.name)
        return len(ran)

    found = interleaved((TASKYARD, CELERY), 4, Deadline(LONG_S), measure)
    assert ran == ["Taskyard", "Celery", "Celery", "Taskyard"] * 2
    assert found == {"Taskyard": [1, 4, 5, 8], "Celery": [2, 3, 6, 7]}


def test_past_the_deadline_only_the_least_rounds_are_run() -> None:
    found = interleaved((TASKYARD, CELERY), 20, Deadline(-1.0), lambda _: 1)
    assert [len(turns) for turns in found.values()] == [LEAST_ROUNDS, LEAST_ROUNDS]


def test_no_two_contenders_of_one_comparison_share_their_keys() -> None:
    assert len({each.database for each in (TASKYARD, CELERY, NAIVE_LOCK)}) == 3


def test_a_deadline_tells_what_is_left() -> None:
    deadline = Deadline(LONG_S, SYSTEM_CLOCK)
    assert not deadline.passed
    assert 0 < deadline.left_s <= LONG_S
    assert Deadline(0.0).passed
