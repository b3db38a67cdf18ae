"""A worker that waits: what it costs, and how soon it notices a job.

The bounds are those of a machine that is busy with other tests; `make bench` measures the figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness
from taskyard.jobs.states import State

WATCHED_S = 5.0
IDLE_PERCENT = 5.0
PICKUPS = 50
TYPICAL_MS, SLOWEST_MS = 50.0, 1000.0


def cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_an_idle_worker_costs_hardly_anything(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    worker.await_log(" ready.")
    assert harness.await_end(harness.act()) is State.COMPLETED
    pids = [worker.pid, *worker.children()]
    spent, since = cpu_s(pids), time.monotonic()
    eventually(lambda: time.monotonic() > since + WATCHED_S, "time passes")
    percent = 100 * (cpu_s(pids) - spent) / (time.monotonic() - since)
    assert percent < IDLE_PERCENT


def test_an_idle_worker_picks_a_job_up_at_once(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    start_worker().await_log(" ready.")
    for _ in range(PICKUPS):
        job = harness.act()
        eventually(lambda job=job: job.state() is State.COMPLETED, "it ran")  # type: ignore[misc]
    times: dict[str, dict[str, int]] = {}
    for event in harness.events():
        times.setdefault(event["job"], {})[event["event"]] = int(event["at"])
    # The first one meets a worker that has just started.
    waits = sorted((at["begin"] - at["admit"]) / 1000 for at in list(times.values())[1:])
    assert waits[len(waits) // 2] < TYPICAL_MS
    assert waits[-1] < SLOWEST_MS
