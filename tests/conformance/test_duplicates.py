"""What comes twice: enqueues, deliveries, processes."""

from __future__ import annotations

import uuid

from conformance.stage import Stage
from taskyard.client import EnqueueRequest
from taskyard.jobs.states import State


def test_a_key_is_one_job_however_often_it_is_enqueued(stage: Stage) -> None:
    key = uuid.uuid4().hex
    jobs = [stage.act(value=number, idempotency_key=key) for number in range(3)]
    stage.settle(*jobs)
    late = stage.act(value=9, idempotency_key=key)
    assert [job.created for job in [*jobs, late]] == [True, False, False, False]
    assert {job.job_id for job in jobs} == {late.job_id}
    assert late.result(0) == 0
    assert stage.diary.runs(late.job_id) == 1


def test_a_key_whose_job_is_a_dead_letter_finds_the_letters_job(stage: Stage) -> None:
    key = uuid.uuid4().hex
    job = stage.act("fail", idempotency_key=key, policy={"max_retries": 0})
    stage.settle(job)
    again = stage.act("return", idempotency_key=key)
    stage.settle(again)
    assert (again.created, again.state()) == (False, State.DEAD_LETTERED)
    assert stage.diary.runs(job.job_id) == 1


def test_a_key_is_free_again_after_the_end_when_its_time_is_zero(stage: Stage) -> None:
    key = uuid.uuid4().hex
    first = stage.act(value=1, idempotency_key=key, unique_for=0)
    stage.settle(first)
    second = stage.act(value=2, idempotency_key=key, unique_for=0)
    stage.settle(second)
    assert second.created
    assert second.job_id == first.job_id
    assert second.result(0) == 2
    assert stage.diary.runs(second.job_id) == 2


def test_many_enqueues_in_one_call_keep_their_order_and_their_keys(stage: Stage) -> None:
    key = uuid.uuid4().hex
    asked = [
        EnqueueRequest(job_type="steady", payload={"value": 1}),
        EnqueueRequest(job_type="steady", payload={"value": 2}, idempotency_key=key),
        EnqueueRequest(job_type="steady", payload={"value": 3}, idempotency_key=key),
    ]
    jobs = stage.client.enqueue_many(asked)
    stage.settle(*jobs)
    assert [job.created for job in jobs] == [True, True, False]
    assert [job.result(0) for job in jobs] == [1, 2, 2]


def test_a_message_of_a_completed_job_that_comes_again_runs_nothing(stage: Stage) -> None:
    job = stage.act(value="first")
    stage.settle(job)
    stage.redeliver(job)
    stage.settle(job)
    assert job.result(0) == "first"
    assert stage.diary.runs(job.job_id) == 1
    assert stage.event_names(job) == ["admit", "begin", "complete"]


def test_a_message_of_a_dead_letter_that_comes_again_makes_no_second_letter(stage: Stage) -> None:
    job = stage.act("fail", policy={"max_retries": 0})
    stage.settle(job)
    stage.redeliver(job)
    stage.settle(job)
    assert stage.diary.runs(job.job_id) == 1
    assert len(stage.letters(job)) == 1


def test_a_process_that_dies_once_is_followed_by_another_attempt(stage: Stage) -> None:
    job = stage.act("kill", times=1, value=7)
    stage.settle(job)
    assert job.result(0) == 7
    assert stage.diary.runs(job.job_id) == 2
    assert stage.event_names(job) == ["admit", "begin", "lose", "begin", "complete"]


def test_a_process_that_dies_each_time_is_poison_exactly_at_its_count(stage: Stage) -> None:
    job = stage.act("kill")
    stage.settle(job)
    limit = stage.client.settings.death_limit
    assert job.state() is State.DEAD_LETTERED
    assert stage.diary.runs(job.job_id) == limit
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("poison", "poison")
    assert letter.outcomes == ["lost"] * limit
    facts = {name: letter.evidence[name] for name in ("counter", "count", "limit")}
    assert facts == {"counter": "deaths", "count": limit, "limit": limit}
    assert "9" in letter.evidence["last_evidence"]


def test_an_effect_in_the_inbox_is_applied_once_though_the_process_died_behind_it(
    stage: Stage,
) -> None:
    job = stage.act("once", value="done")
    stage.settle(job)
    assert job.result(0) == "done"
    assert stage.diary.runs(job.job_id) == 2
    assert stage.diary.effects(job.job_id) == 1
