"""Every question that the pipeline of one attempt puts to Redis is asked again, then given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject
from redis.exceptions import RedisError

from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import DeadLettered
from taskyard.install.body_endings import Returned
from taskyard.install.task_attempt_pipeline import TaskRunner
from taskyard.jobs import Catalogue
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Decided, Ended, Held, Stale
from taskyard.runner import JobDeferred, JobRetrying, JobSkipped, Rules
from taskyard.runner.attempt_steps import AttemptSteps, Delivery
from taskyard.runner.redis_retry import RetryLimits
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.stamp_header import Stamp

SETTINGS = Settings(redis_url="redis://nowhere:1/0")
OLD = Stamp(1, sent_us=1)
ONCE_MORE = RetryLimits(repeats=1, within_s=60)


@pytest.fixture
def runner() -> TaskRunner:
    records = MemoryRecords(YardClock(datetime.now(UTC)), SETTINGS)
    rules = Rules(Catalogue({}), random.SystemRandom())
    return TaskRunner(AttemptSteps(records, rules, SYSTEM_CLOCK))


def delivery(stamp: Stamp | None) -> Delivery:
    return Delivery("job-1", "t", "work", stamp, "holder", "1", "worker", None)


def run(runner: TaskRunner, stamp: Stamp | None = None) -> Any:
    attempt: Any = SimpleNamespace(begun=lambda _: None, call=lambda body, _: Returned(body()))
    task = SimpleNamespace(ignore_result=True)
    return runner.run_task(task, delivery(stamp), attempt, lambda: 7)


def fail_first(runner: TaskRunner, name: str, times: int) -> list[int]:
    """Let the records fail `times` times at `name`; the list grows with each call."""
    records = runner.steps.records
    owner = records if name == "read" else records.attempts
    act: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def failing_first(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise RedisError("away")
        return act(*args, **kwargs)

    setattr(owner, name, failing_first)
    return calls


def test_the_outcome_of_an_installed_task_is_asked_to_be_recorded_again(runner: TaskRunner) -> None:
    calls = fail_first(runner, "finish", 1)
    assert run(runner) == 7
    assert len(calls) == 2
    assert runner.steps.records.read("job-1").state == State.COMPLETED


def test_an_outcome_that_cannot_be_recorded_sends_the_message_back(
    runner: TaskRunner,
) -> None:
    runner.steps.after = ONCE_MORE
    fail_first(runner, "finish", 9)
    with pytest.raises(Reject) as caught:
        run(runner)
    assert caught.value.requeue


@pytest.mark.parametrize("step", ["dead_letter", "read"])
def test_a_job_of_unknown_history_dies_in_spite_of_a_short_outage(
    runner: TaskRunner, step: str
) -> None:
    calls = fail_first(runner, step, 1)
    with pytest.raises(DeadLettered, match="unknown_history"):
        run(runner, OLD)
    assert len(calls) == 2


@pytest.mark.parametrize("step", ["dead_letter", "read"])
def test_an_outage_that_lasts_sends_it_back(runner: TaskRunner, step: str) -> None:
    runner.steps.before = ONCE_MORE
    fail_first(runner, step, 9)
    with pytest.raises(Reject) as caught:
        run(runner, OLD)
    assert caught.value.requeue


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        (Stale(State.RUNNING), JobSkipped),
        (Ended(State.CANCELLED), JobSkipped),
        (Held(7), JobDeferred),
        (Decided(Decision.RETRYING, 1, 9, 1, 0), JobRetrying),
    ],
)
def test_where_another_delivery_came_further_its_answer_is_taken_as_what_it_is(
    runner: TaskRunner, answer: Any, error_type: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.steps.records.attempts, "dead_letter", lambda *_, **__: answer)
    with pytest.raises(error_type) as caught:
        run(runner, OLD)
    if isinstance(caught.value, JobDeferred):
        assert caught.value.wait_us == 7
