"""Urgent work first: a real worker of one process, and jobs that arrive in the wrong order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import pytest

from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness

# Every tenth pop serves the least urgent first, so that nothing waits for ever.
FAIRNESS = 10
ACTS = {"plan": "plan_act", "exec": "exec_act", "locator": "locator_act"}
LEVELS = {"plan": (5, 4, 3, 2), "exec": (5, 4, 3, 2), "locator": (3, 2, 1)}
ON_FOUR_LEVELS = [(queue, level) for queue, levels in LEVELS.items() for level in levels[:-1]]


class Line:
    """A worker held up by one job at a gate, while others gather behind it."""

    def __init__(self, harness: ServerHarness, worker: Worker, queue: str) -> None:
        self.harness, self.worker, self.queue = harness, worker, queue
        self.jobs = [self.add("first", 3, gate="line")]
        worker.await_log(" ready.")
        eventually(lambda: harness.notes.order() == ["first"], "the first job at the gate")

    def add(self, label: str, priority: int, **payload: str) -> str:
        act = ACTS[self.queue]
        return self.harness.act(
            job_type=act, label=label, priority=priority, **payload, policy={"max_retries": 0}
        ).job_id

    def order(self, count: int) -> list[str]:
        """Let them go; the labels in the order of their start, without the first."""
        assert self.harness.notes.order() == ["first"]
        self.harness.open_gate("line")
        eventually(lambda: len(self.harness.notes.order()) == count + 1, f"{count} more runs")
        return self.harness.notes.order()[1:]


@pytest.fixture
def line(harness: ServerHarness, start_worker: Callable[..., Worker]) -> Callable[[str], Line]:
    return lambda queue: Line(harness, start_worker(queues=(queue,), concurrency=1), queue)


def out_of_turn(labels: list[str]) -> int:
    """How many of the labels must be taken away so that the rest falls, e.g. "5", "4", "3"."""
    falling: list[int] = []
    for number in (-int(label) for label in labels):
        place = bisect_right(falling, number)
        falling[place : place + 1] = [number]
    return len(labels) - len(falling)


@pytest.mark.parametrize(("queue", "low"), ON_FOUR_LEVELS)
def test_a_late_urgent_job_overtakes_the_backlog_of_the_level_below(
    line: Callable[[str], Line], queue: str, low: int
) -> None:
    below = LEVELS[queue][LEVELS[queue].index(low) + 1]
    waiting = line(queue)
    for number in range(6):
        waiting.add(f"backlog {number}", below)
    waiting.add("urgent", low)
    order = waiting.order(7)
    # At most one job of the backlog may have had its fair turn before.
    assert order.index("urgent") <= 1
    assert [label for label in order if label != "urgent"] == [f"backlog {n}" for n in range(6)]


@pytest.mark.parametrize("queue", LEVELS)
def test_levels_are_served_from_the_most_urgent_down(
    line: Callable[[str], Line], queue: str
) -> None:
    waiting = line(queue)
    levels = LEVELS[queue]
    for _ in range(3):
        for level in reversed(levels):
            waiting.add(str(level), level)
    order = waiting.order(3 * len(levels))
    assert sorted(order) == sorted(str(level) for level in levels * 3)
    assert out_of_turn(order) <= 1 + len(order) // FAIRNESS, order


def test_without_levels_the_same_arrivals_are_served_in_their_own_order(
    line: Callable[[str], Line],
) -> None:
    waiting = line("plan")
    arrivals = [str(level) for _ in range(3) for level in (2, 3, 4, 5)]
    for label in arrivals:
        waiting.add(label, 3)
    assert waiting.order(12) == arrivals
    assert out_of_turn(arrivals) == 9


def test_priorities_one_and_two_share_the_last_level(line: Callable[[str], Line]) -> None:
    waiting = line("exec")
    for number, level in enumerate((1, 2, 1, 2)):
        waiting.add(f"{number}", level)
    assert waiting.order(4) == ["0", "1", "2", "3"]


def test_work_that_is_never_urgent_still_gets_one_turn_in_ten(line: Callable[[str], Line]) -> None:
    waiting = line("exec")
    waiting.add("patient", 1)
    for number in range(30):
        waiting.add(f"urgent {number}", 5)
    assert waiting.order(31).index("patient") <= FAIRNESS
