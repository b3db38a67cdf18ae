"""A test turns the pauses and kill switches of its yard."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskyard.errors import InvalidSwitch, Refused
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.states import State
from taskyard.switches import Mode, SwitchField
from taskyard.testing import Yard, assert_completed

EXEC = SwitchField.pause("exec")


@pytest.fixture
def yard() -> Yard:
    return Yard()


def on(yard: Yard) -> list[str]:
    return [str(field) for field in yard.switches.stored.read().in_force()]


def test_a_queue_is_paused_and_resumed(yard: Yard) -> None:
    assert yard.switches.pause_queue("exec").mode is Mode.HOLD
    assert on(yard) == ["pause queue:exec"]
    yard.switches.resume_queue("exec")
    assert on(yard) == []


def test_a_kill_switch_is_on_until_it_is_lifted(yard: Yard) -> None:
    assert yard.switches.kill("all", reason="provider down").reason == "provider down"
    held = yard.switches.kill("all", hold=True)
    assert (held.mode, on(yard)) == (Mode.HOLD, ["kill all"])
    assert yard.switches.lift("all").version > held.version
    assert on(yard) == []


def test_a_switch_ends_by_the_clock_of_the_yard(yard: Yard) -> None:
    yard.switches.pause_queue("exec", lasts=timedelta(hours=2))
    yard.advance(timedelta(hours=1, minutes=59))
    assert on(yard) == ["pause queue:exec"]
    yard.advance(timedelta(minutes=1))
    assert on(yard) == []
    since_us = yard.switches.pause_queue("exec").since_us
    assert since_us == yard.clock.now_us()


def test_what_is_off_or_cannot_be_is_refused(yard: Yard) -> None:
    with pytest.raises(Refused, match="kill all is off"):
        yard.switches.lift("all")
    with pytest.raises(InvalidSwitch, match="expected all, queue:NAME"):
        yard.switches.kill("everything")


def test_a_handler_that_enqueues_under_a_kill_switch_is_retried_when_it_ends() -> None:
    handlers = Registry()
    policy = {"max_retries": 3, "backoff_strategy": "linear", "base_delay_ms": 1_000}

    @handlers.job("first", queue="exec", policy=policy)
    def first(payload: int) -> None:
        yard.enqueue("second", payload)

    @handlers.job("second", queue="plan")
    def second(payload: int) -> int:
        return payload

    with Yard(handlers=handlers) as yard:
        yard.switches.kill("type:second", lasts=timedelta(minutes=5))
        job = yard.enqueue("first", 7)
        yard.advance(timedelta(minutes=4))
        (attempt,) = job.record().history
        assert (job.state(), attempt.code) == (State.RETRYING, "kill_switch")
        yard.advance(timedelta(minutes=1, seconds=30))
        assert job.state() is State.COMPLETED
        (made,) = assert_completed(yard, "second")
        assert made.payload == 7


@pytest.mark.parametrize("hold", [False, True])
def test_a_job_that_is_due_after_the_switch_runs_unless_it_is_held(hold: bool) -> None:
    handlers = Registry()
    handlers.job("work", queue="exec")(lambda payload: payload)
    with Yard(handlers=handlers) as yard:
        job = yard.enqueue("work", 1, countdown=60)
        yard.advance(timedelta(seconds=1))
        yard.switches.kill("all", hold=hold)
        yard.advance(timedelta(minutes=2))
        assert job.state() is (State.ACCEPTED if hold else State.COMPLETED)
        yard.switches.lift("all")
        yard.advance(timedelta(minutes=2))
        assert job.state() is State.COMPLETED
