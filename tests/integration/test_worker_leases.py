"""Leases in real workers: who holds a job, who waits for it, and whose outcome counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import Servers
from support.seams import FOLDER_VARIABLE, UNPROTECTED_VARIABLE
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import House, fresh_settings
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.settings import Settings

LEASE_S = 1
TAKEN_OVER = ["admit", "begin", "begin", "complete"]


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url(), lease_s=LEASE_S, visibility_timeout_s=2)


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that a test has stopped; they go on at its end, so that they can end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


def unprotected(folder: Path, what: str) -> dict[str, object]:
    """Worker fields that switch one protection off."""
    variables = {FOLDER_VARIABLE: str(folder), UNPROTECTED_VARIABLE: what}
    return {"environment": variables, "modules": ("support.seams", HANDLERS)}


def await_start(house: House, job: JobHandle, run: int = 1) -> int:
    """Wait for the `run`-th start of the handler; the pid of its process."""
    eventually(lambda: house.runs(job) == run, f"run {run}")
    return int(house.notes.run_facts(job.job_id)[run - 1]["pid"])


def begins(house: House, job: JobHandle) -> list[str]:
    return [event["event"] for event in house.events(job) if event["event"] == "begin"]


# --- renewal ----------------------------------------------------------------------------------


def test_a_handler_that_outlasts_lease_and_visibility_keeps_its_job(
    house: House, start_worker: Callable[..., Worker]
) -> None:
    job = house.act(gate="long", value=1)
    start_worker("one")
    await_start(house, job)
    start_worker("two")
    started_us = job.record().number("started")
    eventually(
        lambda: job.record().number("lease_until") > started_us + 4_000_000, "the third renewal"
    )
    # The visibility timeout has passed: the second delivery found the job held and waits.
    eventually(lambda: house.delayed() == 1, "the second delivery in the delay store")
    house.open_gate("long")
    assert job.result(30) == 1
    house.await_quiet()
    assert house.runs(job) == 1
    assert house.story(job) == ["admit", "begin", "complete"]


def test_without_renewal_it_would_run_twice(
    house: House, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    job = house.act(gate="long", value=1)
    start_worker(**unprotected(tmp_path, "no renewal"))
    await_start(house, job, run=2)
    house.open_gate("long")
    house.await_end(job)
    house.await_quiet()
    assert begins(house, job) == ["begin", "begin"]


# --- a paused process -------------------------------------------------------------------------


def test_a_paused_process_loses_its_job_and_its_late_outcome_is_not_recorded(
    house: House, start_worker: Callable[..., Worker], stopped: list[int]
) -> None:
    job = house.act("token", gate="paused")
    one = start_worker("one", concurrency=1)
    stopped.append(await_start(house, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1)
    await_start(house, job, run=2)
    first, second = (facts["token"] for facts in house.notes.run_facts(job.job_id))
    assert second > first
    house.open_gate("paused")
    assert job.result(30) == second
    os.kill(stopped[0], signal.SIGCONT)
    one.await_log("this attempt's outcome came too late, the job is completed")
    house.await_quiet()
    assert job.result(0) == second
    assert house.story(job) == TAKEN_OVER


def test_without_the_token_the_late_outcome_would_be_recorded_over_the_running_attempt(
    house: House, start_worker: Callable[..., Worker], stopped: list[int], tmp_path: Path
) -> None:
    job = house.act("token", gate="paused")
    start_worker("one", concurrency=1, **unprotected(tmp_path, "no token"))
    stopped.append(await_start(house, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1, **unprotected(tmp_path, "no token"))
    stopped.append(await_start(house, job, run=2))
    os.kill(stopped[1], signal.SIGSTOP)
    house.open_gate("paused")
    os.kill(stopped[0], signal.SIGCONT)
    first = house.notes.run_facts(job.job_id)[0]["token"]
    assert job.result(30) == first


def test_a_late_failure_does_not_disturb_the_attempt_that_took_over(
    house: House, start_worker: Callable[..., Worker], stopped: list[int]
) -> None:
    job = house.act("gate then fail", times=1, gate="paused", value=2)
    one = start_worker("one", concurrency=1)
    stopped.append(await_start(house, job))
    os.kill(stopped[0], signal.SIGSTOP)
    start_worker("two", concurrency=1)
    assert job.result(30) == 2
    house.open_gate("paused")
    os.kill(stopped[0], signal.SIGCONT)
    one.await_log("came too late")
    house.await_quiet()
    assert job.state() is State.COMPLETED
    assert house.story(job) == TAKEN_OVER
    assert house.letters() == []


# --- held duplicates --------------------------------------------------------------------------


def test_duplicates_of_a_running_job_wait_in_the_delay_store_and_not_in_a_worker(
    house: House, start_worker: Callable[..., Worker]
) -> None:
    job = house.act(gate="held", value=1)
    key = next(key for key in house.queue_keys if house.broker.llen(key))
    (message,) = house.broker.lrange(key, 0, -1)
    start_worker(concurrency=2)
    await_start(house, job)
    for _ in range(3):
        house.broker.lpush(key, message)
    eventually(lambda: house.delayed() == 1 and not house.queued(), "one waiting, collapsed of 3")
    eventually(lambda: house.unacked() == 1, "only the running one in the worker")
    # A slot is free: the duplicates hold none.
    assert house.act(value=2).result(30) == 2
    house.open_gate("held")
    assert job.result(30) == 1
    house.await_quiet()
    assert house.runs(job) == 1
