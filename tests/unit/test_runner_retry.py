"""While Redis is unreachable around a handler, calls are repeated; then the message returns."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

import pytest
from celery.exceptions import Reject
from redis.exceptions import OutOfMemoryError, RedisError

from taskyard.runner import redis_retry
from taskyard.runner.redis_retry import AFTER, BEFORE, RetryLimits, Unreachable, retry_redis
from taskyard.wire.failure_backoff import FailureBackoff


def failing(times: int, error: Exception) -> Callable[[], str]:
    """An act that fails `times` times."""
    left = iter(range(times))

    def act() -> str:
        if next(left, None) is not None:
            raise error
        return "answer"

    return act


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has failed in it yet."""
    monkeypatch.setattr(redis_retry, "_BACKOFF", FailureBackoff())


def test_a_refusal_that_passes_is_logged_once_with_its_end_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        assert (
            retry_redis("finish", "job-1", failing(2, OutOfMemoryError("full")), AFTER) == "answer"
        )
    actions = [vars(record)["action"] for record in caplog.records]
    assert actions == ["finish_unreachable", "works_again"]
    assert "Redis did not answer in step 'finish' of a job: full" in caplog.text


def test_one_that_lasts_sends_every_message_back_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        for number in range(3):
            with pytest.raises(Unreachable) as caught:
                retry_redis(
                    "begin", f"job-{number}", failing(9, RedisError("gone")), RetryLimits(1, 60)
                )
            assert isinstance(caught.value, Reject)
            assert caught.value.requeue
    assert [vars(record)["action"] for record in caplog.records] == ["begin_unreachable"]


def test_what_the_child_says_of_it_survives_the_way_to_the_main_process() -> None:
    said = pickle.loads(pickle.dumps(Unreachable("gone")))  # noqa: S301 - our own bytes
    assert (type(said), said.reason, said.requeue) == (Unreachable, "gone", True)


def test_one_that_is_long_in_coming_ends_it_before_the_last_repeat() -> None:
    asked: list[str] = []

    def act() -> str:
        asked.append("once")
        raise RedisError("silent")

    with pytest.raises(Reject):
        retry_redis("finish", "job-1", act, RetryLimits(repeats=9, within_s=0))
    assert asked == ["once"]


def test_another_error_is_not_taken_for_an_outage() -> None:
    with pytest.raises(ValueError, match="ours"):
        retry_redis("begin", "job-1", failing(1, ValueError("ours")), BEFORE)
