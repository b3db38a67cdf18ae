"""Whatever a handler raises is its failure, in every pool; only a process asked to end has none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from servers import Servers
from support import raising
from support.odd_exceptions import RAISED, SIGNAL_EXIT
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.jobs.states import State

POOLS = ("prefork", "threads", "solo", "gevent")
MODULES = (HANDLERS, raising.__name__)


@dataclass
class Pool:
    """A worker with one kind of pool, and its client."""

    name: str
    worker: Worker
    harness: ServerHarness

    def send(self, job_type: str, name: str, times: int = -1) -> JobHandle:
        return self.harness.yard.enqueue(job_type, {"name": name, "times": times})

    def assert_sound(self) -> None:
        """The worker is there, and runs jobs."""
        job = self.send("raise_act", "Panic", times=0)
        assert self.harness.await_end(job) is State.COMPLETED, self.worker.log[-4000:]
        assert self.worker.running


@pytest.fixture(scope="module", params=POOLS)
def pool(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    settings = fresh_settings(servers.valkey_url(), lease_s=2)
    folder = tmp_path_factory.mktemp(request.param)
    options = ("-P", request.param)
    # A worker without an event loop looks for a message once a second while it holds its count.
    size = 16 if request.param == "gevent" else 2
    with Worker(settings, folder, modules=MODULES, options=options, concurrency=size) as worker:
        worker.start()
        harness = ServerHarness(settings)
        yield Pool(request.param, worker, harness)
        harness.close()


def test_what_a_handler_raises_is_its_only_failure_and_the_letter_has_its_class(pool: Pool) -> None:
    jobs = {name: pool.send("raise_act", name) for name in RAISED}
    for name, job in jobs.items():
        assert pool.harness.await_end(job) is State.DEAD_LETTERED, (
            f"{name}\n{pool.worker.log[-4000:]}"
        )
        eventually(lambda job=job: pool.harness.letters_of(job), f"a letter of {name}")  # type: ignore[misc]
        [letter] = pool.harness.letters_of(job)
        expected = "SystemExit" if name == SIGNAL_EXIT else name
        assert letter["error_class"] == expected
        assert pool.harness.runs(job) == 1, name
        assert pool.harness.event_names(job) == ["admit", "begin", "fail"], name
    pool.assert_sound()


def test_the_retry_policy_holds_for_what_is_no_ordinary_exception(pool: Pool) -> None:
    jobs = {name: pool.send("raise_retried", name) for name in RAISED}
    healed = {name: pool.send("raise_retried", name, times=1) for name in RAISED}
    for name, job in jobs.items():
        assert pool.harness.await_end(job) is State.DEAD_LETTERED, name
        assert pool.harness.runs(job) == 3, name
        assert pool.harness.event_names(job) == ["admit", *["begin", "retry"] * 2, "begin", "fail"]
    for name, job in healed.items():
        assert pool.harness.await_end(job) is State.COMPLETED, name
        assert pool.harness.runs(job) == 2, name


def test_a_coroutine_that_was_cancelled_or_panics_has_failed(pool: Pool) -> None:
    if pool.name == "gevent":
        pytest.skip("a handler that is a coroutine needs a thread of its own")
    jobs = [pool.send("raise_async", name) for name in ("CancelledError", "Panic", "SystemExit")]
    sound = [pool.send("raise_async", "Panic", times=0) for _ in range(4)]
    for job in jobs:
        assert pool.harness.await_end(job) is State.DEAD_LETTERED, pool.worker.log[-4000:]
        assert pool.harness.runs(job) == 1
    for job in sound:
        assert pool.harness.await_end(job) is State.COMPLETED, pool.worker.log[-4000:]


def test_a_handler_over_its_hard_limit_has_failed_where_the_pool_has_limits(pool: Pool) -> None:
    if pool.name in ("threads", "solo"):
        pytest.skip("Celery sets no time limits in this pool")
    job = pool.harness.act("hang", "hard_act")
    assert pool.harness.await_end(job) is State.DEAD_LETTERED
    eventually(
        lambda: pool.harness.letters_of(job), "its letter", why=lambda: pool.worker.log[-4000:]
    )
    [letter] = pool.harness.letters_of(job)
    assert (letter["category"], letter["error_class"]) == ("timeout", "TimeLimitExceeded")
    assert pool.harness.runs(job) == 1
    pool.assert_sound()


# -- who was asked to end ---------------------------------------------------------------------


@pytest.mark.parametrize("job_type", ["exec_act", "clean_up_act"])
def test_a_process_that_was_asked_to_end_has_no_outcome_whatever_its_clean_up_raises(
    harness: ServerHarness, start_worker: Callable[..., Worker], job_type: str
) -> None:
    start_worker(concurrency=1, modules=MODULES)
    job = harness.act(job_type=job_type, gate="open")
    eventually(lambda: harness.runs(job) == 1, "the first run")
    os.kill(harness.notes.run_facts(job.job_id)[0]["pid"], signal.SIGTERM)
    eventually(lambda: harness.runs(job) == 2, "the second run")
    harness.open_gate("open")
    assert harness.await_end(job) is State.COMPLETED
    assert harness.event_names(job) == ["admit", "begin", "lose", "begin", "complete"]


def test_a_solo_worker_that_must_end_at_once_leaves_its_job_to_the_next(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    first = start_worker(options=("-P", "solo"), modules=MODULES)
    first.await_log(" ready.")
    job = harness.act(gate="open")
    eventually(lambda: harness.runs(job) == 1, "the first run")
    first.kill(signal.SIGQUIT)
    start_worker("second", concurrency=1, modules=MODULES)
    eventually(lambda: harness.runs(job) == 2, "the second run", why=lambda: first.log[-4000:])
    harness.open_gate("open")
    assert harness.await_end(job) is State.COMPLETED
    assert "fail" not in harness.event_names(job)
    assert harness.letters_of(job) == []
