"""What is served when: urgency, waits and expiry."""

from __future__ import annotations

import uuid

from conformance.stage import Stage
from taskyard.jobs.states import State


def test_the_most_urgent_job_of_a_queue_is_served_first_on_four_levels(stage: Stage) -> None:
    run = uuid.uuid4().hex[:6]
    with stage.holding():
        jobs = [
            stage.act(label=f"{run} {priority} {number}", priority=priority)
            for number in range(2)
            for priority in (1, 2, 3, 4, 5)
        ]
    stage.settle(*jobs)
    served = [label.split()[1:] for label in stage.diary.labels() if label.startswith(run)]
    levels = [level if level in "345" else "1-2" for level, _ in served]
    assert levels == ["5", "5", "4", "4", "3", "3", *["1-2"] * 4]
    for priority in "345":
        assert [number for level, number in served if level == priority] == ["0", "1"]


def test_a_countdown_lets_a_later_job_go_first(stage: Stage) -> None:
    run = uuid.uuid4().hex[:6]
    late = stage.act(label=f"{run} late", countdown=1)
    soon = stage.act(label=f"{run} soon")
    stage.settle(late, soon)
    served = [label.split()[1] for label in stage.diary.labels() if label.startswith(run)]
    assert served == ["soon", "late"]


def test_a_job_whose_time_is_over_before_it_starts_ends_in_a_letter(stage: Stage) -> None:
    job = stage.act(countdown=1.2, expires=0.3)
    stage.settle(job)
    assert job.state() is State.DEAD_LETTERED
    assert stage.diary.runs(job.job_id) == 0
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("expired", "expired")
    assert not letter.eligible


def test_a_job_that_starts_in_time_does_not_expire(stage: Stage) -> None:
    job = stage.act(value=1, expires=600)
    stage.settle(job)
    assert job.result(0) == 1
