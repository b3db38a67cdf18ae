"""A worker's timers: what is cancelled leaves the heap, what is not is due in its order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from hypothesis import given
from hypothesis import strategies as st
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from taskyard.engine.cancelled_timers import discard_cancelled

JOBS = 200_000
AT_ONCE = 8
HOUR_S = 3_600


@pytest.fixture
def hub() -> Hub:
    timer = Timer()
    discard_cancelled(timer)
    return Hub(timer)


def limits_of_a_pool(hub: Hub) -> Any:
    """Celery's own time limits, of a pool without processes."""
    pool = SimpleNamespace(_on_soft_timeout=print, _on_hard_timeout=print)
    AsynPool._create_timelimit_handlers(pool, hub)
    return pool


@pytest.mark.parametrize("limits", [(None, HOUR_S), (HOUR_S / 2, HOUR_S)])
def test_200000_quick_jobs_with_limits_of_an_hour_keep_no_timers(
    hub: Hub, limits: tuple[float | None, float]
) -> None:
    pool, running, largest = limits_of_a_pool(hub), [], 0
    for number in range(JOBS):
        job = SimpleNamespace(_job=number)
        pool.on_timeout_set(job, *limits)
        running.append(job)
        if len(running) == AT_ONCE:
            pool.on_timeout_cancel(running.pop(number % AT_ONCE))
        largest = max(largest, len(hub.timer))
    assert largest <= 200
    live = [each.entry.args[0] for each in hub.timer._queue if not each.entry.canceled]
    assert sorted(live) == [job._job for job in sorted(running, key=lambda job: job._job)]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=400))
def test_what_is_not_cancelled_is_due_in_its_order(timers: list[tuple[int, bool]]) -> None:
    timer = Timer()
    discard_cancelled(timer)
    due: list[int] = []
    entries = [timer.call_at(at, due.append, (at,)) for at, _ in timers]
    for entry, (_, cancelled) in zip(entries, timers, strict=True):
        if cancelled:
            entry.cancel()
            entry.cancel()
    for _, entry in timer:
        if entry is None:
            break
        timer.apply_entry(entry)
    assert due == sorted(at for at, cancelled in timers if not cancelled)
