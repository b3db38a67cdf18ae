"""Redis away around a handler: asked again, and then the message goes back."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from celery.exceptions import Reject
from redis.exceptions import OutOfMemoryError, RedisError

from taskyard.runner.patience import AFTER, BEFORE, Patience, ask


def failing(times: int, error: Exception) -> Callable[[], str]:
    """An act that fails `times` times."""
    left = iter(range(times))

    def act() -> str:
        if next(left, None) is not None:
            raise error
        return "answer"

    return act


def test_a_refusal_that_passes_is_told_and_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert ask("finish", "job-1", failing(2, OutOfMemoryError("full")), AFTER) == "answer"
    actions = [vars(record)["action"] for record in caplog.records]
    assert actions == ["finish_unreachable", "finish_unreachable"]
    assert "job job-1: no answer from Redis to finish: full" in caplog.text


def test_one_that_lasts_sends_the_message_back(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Reject) as caught, caplog.at_level(logging.WARNING):
        ask("begin", "job-1", failing(9, RedisError("gone")), Patience(1, 60))
    assert caught.value.requeue
    assert [vars(record)["action"] for record in caplog.records][-1] == "begin_given_up"


def test_one_that_is_long_in_coming_ends_it_before_the_last_repeat() -> None:
    asked: list[str] = []

    def act() -> str:
        asked.append("once")
        raise RedisError("silent")

    with pytest.raises(Reject):
        ask("finish", "job-1", act, Patience(repeats=9, within_s=0))
    assert asked == ["once"]


def test_another_error_is_not_taken_for_an_outage() -> None:
    with pytest.raises(ValueError, match="ours"):
        ask("begin", "job-1", failing(1, ValueError("ours")), BEFORE)
