"""How a job that runs can end, on every stage the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conformance.stage import Stage
from taskyard.client import JobHandle
from taskyard.errors import (
    DeadLettered,
    InvalidPayload,
    PayloadTooLarge,
    UnknownJobType,
    UnknownPriority,
    UnknownQueue,
)
from taskyard.jobs.states import State


@pytest.mark.parametrize("job_type", ["steady", "patient"])
def test_a_job_that_succeeds_returns_its_handlers_result(stage: Stage, job_type: str) -> None:
    job = stage.act(job_type=job_type, value={"a": [1, None, "ü"]})
    assert job.created
    stage.settle(job)
    assert job.state() is State.COMPLETED
    assert job.result(0) == {"a": [1, None, "ü"]}
    assert stage.diary.runs(job.job_id) == 1
    assert stage.event_names(job) == ["admit", "begin", "complete"]
    assert stage.letters(job) == []


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}, 1.5, "ü\x00\ud800"])
def test_a_result_comes_back_as_it_was(stage: Stage, value: Any) -> None:
    job = stage.act(value=value)
    stage.settle(job)
    assert job.result(0) == value
    assert type(job.result(0)) is type(value)


def test_an_asyncio_service_enqueues_too(stage: Stage) -> None:
    async def enqueue() -> JobHandle:
        return await stage.client.aenqueue("steady", {"value": 4}, priority=2)

    job = asyncio.run(enqueue())
    stage.settle(job)
    assert (job.result(0), job.created) == (4, True)


@pytest.mark.parametrize("job_type", ["steady", "patient"])
def test_a_job_that_fails_once_is_run_again_and_completes(stage: Stage, job_type: str) -> None:
    job = stage.act("fail", job_type, times=1, value=7)
    stage.settle(job)
    assert job.result(0) == 7
    assert stage.diary.runs(job.job_id) == 2
    assert stage.event_names(job) == ["admit", "begin", "retry", "begin", "complete"]


def test_retries_that_are_spent_end_in_one_letter(stage: Stage) -> None:
    job = stage.act("fail")
    stage.settle(job)
    assert job.state() is State.DEAD_LETTERED
    assert stage.diary.runs(job.job_id) == 3
    assert stage.event_names(job) == ["admit", *["begin", "retry"] * 2, "begin", "fail"]
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("retry_exhausted", "flaky")
    assert letter.outcomes == ["retrying", "retrying", "dead_lettered"]


def test_an_error_that_its_type_never_retries_ends_at_once(stage: Stage) -> None:
    job = stage.act("fail", "picky", code="hopeless")
    stage.settle(job)
    assert stage.diary.runs(job.job_id) == 1
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("non_retryable", "hopeless")


def test_a_policy_that_came_with_the_job_wins_over_its_types(stage: Stage) -> None:
    job = stage.act("fail", policy={"max_retries": 0})
    stage.settle(job)
    assert stage.diary.runs(job.job_id) == 1
    assert stage.letters(job)[0].category == "retry_exhausted"


@pytest.mark.parametrize(
    ("do", "category", "code", "runs"),
    [
        ("big", "non_retryable", "result_too_large", 1),
        ("not_json", "non_retryable", "result_invalid", 1),
        ("nan", "non_retryable", "result_invalid", 1),
        ("exit", "retry_exhausted", "system_exit", 3),
        ("panic", "retry_exhausted", "exception", 3),
    ],
)
def test_a_result_that_cannot_be_kept_or_a_handler_that_leaves_is_a_failure(
    stage: Stage, do: str, category: str, code: str, runs: int
) -> None:
    job = stage.act(do)
    stage.settle(job)
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == (category, code)
    assert stage.diary.runs(job.job_id) == runs


@pytest.mark.parametrize("job_type", ["brief", "warned"])
def test_a_handler_over_its_hard_or_soft_time_limit_is_a_timeout(
    stage: Stage, job_type: str
) -> None:
    job = stage.act("hang", job_type)
    stage.settle(job)
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("timeout", "timeout")
    kind = "TimeLimitExceeded" if job_type == "brief" else "SoftTimeLimitExceeded"
    assert letter.error_class == kind


def test_a_payload_that_only_the_handlers_model_refuses_is_a_validation_error(
    stage: Stage,
) -> None:
    job = stage.act(times="many")
    stage.settle(job)
    [letter] = stage.letters(job)
    assert (letter.category, letter.code) == ("validation_error", "validation_error")
    assert "times" in letter.message
    assert not letter.eligible
    assert stage.diary.runs(job.job_id) == 0


def test_the_result_of_a_dead_letter_names_the_letter(stage: Stage) -> None:
    job = stage.act("fail", policy={"max_retries": 0})
    stage.settle(job)
    with pytest.raises(DeadLettered, match="told to fail") as raised:
        job.result(0)
    assert raised.value.dead_letter_id == stage.letters(job)[0].letter_id
    assert raised.value.code == "flaky"


def test_progress_is_seen_while_the_job_is_live(stage: Stage) -> None:
    job = stage.act("report", value=1)
    stage.settle(job)
    assert job.result(0) == 1


@pytest.mark.parametrize(
    ("job_type", "payload", "options", "error"),
    [
        ("stedy", {}, {}, UnknownJobType),
        ("steady", {}, {"queue": "nowhere"}, UnknownQueue),
        ("steady", {}, {"priority": 9}, UnknownPriority),
        ("steady", {"a": {1}}, {}, InvalidPayload),
        ("steady", {"a": "x" * 300_000}, {}, PayloadTooLarge),
        ("steady", {}, {"countdown": -1}, InvalidPayload),
        ("steady", {}, {"unique_for": 1}, InvalidPayload),
        ("plan_generation", {"no": "such field"}, {}, InvalidPayload),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_at_once(
    stage: Stage,
    job_type: str,
    payload: Any,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        stage.client.enqueue(job_type, payload, **options)


def test_a_job_type_without_a_handler_ends_in_a_letter(stage: Stage) -> None:
    job_id = stage.send_unknown("nobody_has_it")
    stage.settle(job_id)
    [letter] = stage.letters(job_id)
    assert (letter.category, letter.code) == ("unknown_task", "unknown_task")
    assert "nobody_has_it" in letter.message


def test_a_chain_goes_on_with_the_result_of_each_link(stage: Stage) -> None:
    stage.need_canvas()
    app = stage.client.app
    first = app.signature("steady", args=[{"value": {"value": 11}}])
    end = (first | app.signature("steady") | app.signature("relayed"))()
    stage.settle(end.id)
    assert stage.client.job(end.id).result(0) == 11
    # Celery keeps every sent result until it was asked for.
    end.get(timeout=10)
