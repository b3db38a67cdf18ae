"""What is served when: urgency, waits and expiry."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise

from conformance.stage import Stage
from support.rabbitmq import chosen
from taskyard.clock import seconds_of
from taskyard.engine.pending_publications import AT_ONCE_US
from taskyard.jobs.states import State

# Redis serves the least urgent list first at every tenth pop, so that nothing waits for ever.
OUT_OF_TURN = {"memory": 0, "redis": 1, "rabbitmq": 0}


def test_the_most_urgent_job_of_a_queue_is_served_first_on_the_levels_there_are(
    stage: Stage,
) -> None:
    run = uuid.uuid4().hex[:6]
    with stage.holding():
        jobs = [
            stage.act(label=f"{run} {priority} {number}", priority=priority)
            for number in range(2)
            for priority in (2, 3, 4, 5)
        ]
    stage.settle(*jobs)
    served = [label.split()[1:] for label in stage.diary.labels() if label.startswith(run)]
    levels = [int(level) for level, _ in served]
    assert len(levels) == 8
    if stage.name == "rabbitmq" and chosen(stage.client.settings).priorities == 2:
        # Two urgent ones for each other one, which come in their own order.
        assert sorted(levels[:3])[1:] == [5, 5]
        assert [level for level in levels if level != 5] == [2, 3, 4, 2, 3, 4]
        return
    assert _out_of_turn(levels) <= OUT_OF_TURN[stage.name], levels
    for priority in "2345":
        assert [number for level, number in served if level == priority] == ["0", "1"]


def _out_of_turn(levels: list[int]) -> int:
    """How many must be taken away so that the rest falls."""
    return next(
        away
        for away in range(len(levels))
        if any(
            all(a >= b for a, b in pairwise(rest))
            for rest in combinations(levels, len(levels) - away)
        )
    )


def test_a_countdown_lets_a_later_job_go_first(stage: Stage) -> None:
    run = uuid.uuid4().hex[:6]
    late = stage.act(label=f"{run} late", countdown=1.5)
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


def test_an_expiry_may_be_a_moment(stage: Stage) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=600)
    job = stage.act(value=2, expires=moment)
    stage.settle(job)
    assert job.result(0) == 2


def test_a_retry_waits_as_long_as_its_policy_and_its_error_ask(stage: Stage) -> None:
    plain = stage.act("fail", "patient")
    asked = stage.act("fail", retry_after_s=0.5, policy={"max_retries": 1})
    stage.settle(plain, asked)
    assert _at_least(stage.letters(plain)[0].waits_s, [0.15, 0.3])
    assert _at_least(stage.letters(asked)[0].waits_s, [0.5])


def _at_least(waits_s: list[float], asked_s: list[float]) -> bool:
    """A retry is published at once where so little is left of its wait."""
    at_once_s = seconds_of(AT_ONCE_US)
    return all(wait >= wish - at_once_s for wait, wish in zip(waits_s, asked_s, strict=True))
