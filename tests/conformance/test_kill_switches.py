"""What a kill switch refuses and what it lets in, on every stage the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from conformance.stage import Stage
from taskyard.client import EnqueueRequest
from taskyard.errors import KillSwitchOn
from taskyard.jobs.states import State
from taskyard.switches import Mode, SwitchState

SCOPES = ["all", "queue:exec", "type:steady"]


@pytest.fixture
def calm(stage: Stage) -> Iterator[Stage]:
    """A stage whose kill switches are off again at the end."""
    yield stage
    lift(stage)


def turn_on(stage: Stage, on: str, mode: Mode = Mode.REFUSE) -> None:
    records = stage.client.records
    # A clock that stands still has the jobs before it in the same microsecond.
    now_us = records.now_us() + 1
    state = SwitchState(mode, now_us, now_us, reason="the handler doubles its effects")
    records.client.hset(records.keys.switches, f"kill {on}", state.encode())


def lift(stage: Stage) -> None:
    records = stage.client.records
    records.client.delete(records.keys.switches)


@pytest.mark.parametrize("on", SCOPES)
def test_new_jobs_are_refused_until_the_switch_is_lifted(calm: Stage, on: str) -> None:
    turn_on(calm, on)
    with pytest.raises(KillSwitchOn, match=f"the kill switch on {on} is on since") as caught:
        calm.act(idempotency_key=on)
    assert (caught.value.field, caught.value.retry_after) == (f"kill {on}", 30)
    with pytest.raises(KillSwitchOn):
        asyncio.run(calm.client.aenqueue("steady", {"value": 1}))
    lift(calm)
    job = calm.act(idempotency_key=on, value=1)
    assert job.created
    calm.settle(job)
    assert job.result(0) == 1


def test_a_job_that_ended_is_still_found_by_its_key(calm: Stage) -> None:
    job = calm.act(idempotency_key="ended", value=1)
    calm.settle(job)
    turn_on(calm, "all", Mode.HOLD)
    again = calm.act(idempotency_key="ended", value=2)
    assert (again.job_id, again.created) == (job.job_id, False)
    assert again.state() is State.COMPLETED


def test_of_many_only_those_of_the_switch_are_refused(calm: Stage) -> None:
    turn_on(calm, "type:patient")
    types = ["steady", "patient", "steady", "patient"]
    with pytest.raises(KillSwitchOn) as caught:
        calm.client.enqueue_many(
            EnqueueRequest(job_type=name, payload={"value": 1}) for name in types
        )
    assert caught.value.requests == (1, 3)
    jobs = [calm.client.job(job_id) for job_id in caught.value.job_ids]
    calm.settle(*jobs)
    assert [job.result(0) for job in jobs] == [1, 1]


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HOLD])
def test_a_job_that_was_scheduled_before_the_switch_is_not_lost(calm: Stage, mode: Mode) -> None:
    """It runs at its time in mode `refuse`; a hold keeps it until the switch is lifted."""
    job = calm.act(countdown=1, value=1)
    turn_on(calm, "type:steady", mode)
    with pytest.raises(KillSwitchOn):
        calm.act(countdown=1)
    if mode is Mode.HOLD:
        lift(calm)
    calm.settle(job)
    assert job.result(0) == 1
    assert calm.diary.runs(job.job_id) == 1
