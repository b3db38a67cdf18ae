"""A worker that holds more than it runs, and meets a job that takes long."""

from __future__ import annotations

from collections.abc import Callable

from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness
from taskyard.jobs.states import State

QUICK, BEHIND = 300, 12


def test_jobs_behind_a_long_one_go_to_a_worker_that_is_idle(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    quick = [harness.act() for _ in range(QUICK)]
    long = harness.act(gate="long")
    behind = [harness.act() for _ in range(BEHIND)]
    first = start_worker("first", concurrency=1, options=["-l", "INFO"])
    eventually(lambda: harness.runs(long) == 1, "the long job runs", within_s=60)
    start_worker("second", concurrency=1)
    for job in (*quick, *behind):
        assert harness.await_end(job) is State.COMPLETED, first.log[-3000:]
    assert long.state() is State.RUNNING, first.log[-3000:]
    # None of them counts as delivered before: going back untouched is no sign of poison.
    assert [int(job.record().number("deliveries")) for job in behind] == [0] * BEHIND
    harness.open_gate("long")
    assert harness.await_end(long) is State.COMPLETED
    assert [harness.runs(job) for job in (*quick, long, *behind)] == [1] * (QUICK + 1 + BEHIND)
    harness.await_quiet()
    assert first.running
