"""Starting, asking and stopping real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from servers import Servers
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.jobs.states import State
from taskyard.settings import Settings

PREFETCHED = 4


def celery(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`celery -A taskyard.workers.app ...` with these TASKYARD_* variables and no others."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
    argv = [sys.executable, "-m", "celery", "-A", "taskyard.workers.app", *words]
    return subprocess.run(
        argv, env={**own, **variables}, cwd="/", capture_output=True, text=True, check=False
    )


# --- start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {},
            (
                "taskyard: TASKYARD_BROKER_URL is not set: it names the broker that carries the "
                "jobs. "
                "Set it, or start everything on this machine with: taskyard up"
            ),
        ),
        (
            {"TASKYARD_BROKER_URL": "redis://127.0.0.1:1/0"},
            (
                "taskyard: TASKYARD_REDIS_URL is not set: it names the Redis that holds the job "
                "records. Set it, or start everything on this machine with: taskyard up"
            ),
        ),
        (
            {"TASKYARD_BROKER_ULR": "redis://127.0.0.1:1/0"},
            (
                "taskyard: TASKYARD_BROKER_ULR: unknown setting 'broker_ulr'; "
                "did you mean 'broker_url'?"
            ),
        ),
        (
            {"TASKYARD_LEASE_S": "soon"},
            (
                "taskyard: lease_s (from TASKYARD_LEASE_S): Input should be a valid number, "
                "unable to "
                "parse string as a number, got: 'soon'"
            ),
        ),
    ],
)
def test_a_worker_that_is_set_up_wrongly_says_one_sentence_and_ends(
    variables: dict[str, str], sentence: str
) -> None:
    done = celery("worker", **variables)
    assert done.returncode != 0
    assert done.stdout + done.stderr == sentence + "\n"


def test_another_packages_handlers_that_cannot_be_imported_are_one_line_and_no_end(
    start_worker: Callable[..., Worker], harness: ServerHarness
) -> None:
    worker = start_worker(modules=(HANDLERS, "absent.handlers"), queues=("exec",))
    assert harness.act(value="done").result(60) == "done"
    line = next(line for line in worker.log.splitlines() if "absent.handlers" in line)
    assert "cannot be imported: ModuleNotFoundError: No module named 'absent'" in line
    assert line.endswith("jobs of its types become dead letters in this worker")
    assert "Traceback" not in worker.log


def test_a_worker_without_any_handler_that_can_be_imported_says_so_and_ends(
    settings: Settings, tmp_path: Path
) -> None:
    bare = settings.model_copy(update={"builtin_jobs": False})
    worker = Worker(bare, tmp_path, modules=("absent.handlers",)).launch()
    assert worker.wait() != 0
    assert "taskyard: no handler can be imported, so every job would become a dead" in worker.log
    assert "Traceback" not in worker.log


# --- control ----------------------------------------------------------------------------------


def test_ping_active_and_registered_answer(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1)
    job = harness.act(gate="asked")
    eventually(lambda: harness.runs(job) == 1, "the handler's start")
    inspect = harness.yard.app.control.inspect(timeout=5, limit=1)
    (name,) = inspect.ping()
    assert name.startswith(f"{worker.name}@")
    assert inspect.ping() == {name: {"ok": "pong"}}
    (active,) = inspect.active()[name]
    assert (active["id"], active["name"], active["acknowledged"]) == (job.job_id, "exec_act", False)
    assert {"exec_act", "plan_generation"} <= set(inspect.registered()[name])
    harness.open_gate("asked")
    harness.await_end(job)


def test_a_worker_without_a_queue_keeps_its_connection_when_a_message_comes(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec",))
    assert harness.await_end(harness.act()) is State.COMPLETED
    control, name = harness.yard.app.control, harness.settings.broker_name("exec")
    assert control.cancel_consumer(name, reply=True, limit=1, timeout=10)
    cancelled = monotonic()
    eventually(lambda: monotonic() > cancelled + 1.5, "the worker's next look at its queues")
    # Redis still announces changes of the list to this worker.
    job = harness.act()
    assert control.add_consumer(name, reply=True, limit=1, timeout=10)
    assert harness.await_end(job) is State.COMPLETED
    assert "Connection to broker lost" not in worker.log


def test_workers_of_another_namespace_do_not_answer(
    harness: ServerHarness, servers: Servers, start_worker: Callable[..., Worker]
) -> None:
    stranger = fresh_settings(servers.valkey_url())
    start_worker("ours").await_log(" ready.")
    start_worker("theirs", settings=stranger).await_log(" ready.")
    replies = harness.yard.app.control.ping(timeout=2)
    assert [name.split("@")[0] for reply in replies for name in reply] == ["ours"]


@pytest.mark.parametrize(("terminate", "state"), [(False, State.CANCELLED), (True, State.ABORTED)])
def test_a_queued_job_that_celery_revokes_does_not_run_and_leaves_no_letter(
    harness: ServerHarness, start_worker: Callable[..., Worker], terminate: bool, state: State
) -> None:
    start_worker(concurrency=1, options=["--prefetch-multiplier", "4"])
    first, revoked = harness.act(gate="busy"), harness.act()
    eventually(lambda: harness.unacked() == 2, "one running, one prefetched")
    eventually(lambda: harness.runs(first) == 1, "the first start")
    arguments = {"task_id": revoked.job_id, "terminate": terminate}
    control = harness.yard.app.control
    assert control.broadcast("revoke", arguments, reply=True, limit=1, timeout=10)
    harness.open_gate("busy")
    harness.await_end(first)
    assert harness.await_end(revoked) is state
    harness.await_quiet()
    assert (harness.runs(revoked), harness.letters_of(revoked)) == (0, [])


def test_a_running_job_that_celery_terminates_is_aborted_and_its_attempt_stopped(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    start_worker(concurrency=1)
    job = harness.act(gate="late")
    eventually(lambda: harness.runs(job) == 1, "the handler's start")
    harness.yard.app.control.revoke(job.job_id, terminate=True, signal="SIGKILL")
    assert harness.await_end(job) is State.ABORTED
    harness.await_quiet()
    assert (harness.runs(job), harness.letters_of(job)) == (1, [])
    assert job.state() is State.ABORTED
    assert harness.act(value=1).result(30) == 1


# --- stop -------------------------------------------------------------------------------------


@pytest.fixture
def draining(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> tuple[ServerHarness, Worker, list[str]]:
    """A worker of one process: one job runs at a gate, some are prefetched, some are queued."""
    jobs = [harness.act(gate="drain", label=str(number), value=number) for number in range(8)]
    worker = start_worker("leaving", concurrency=1, options=["--prefetch-multiplier", "4"])
    eventually(lambda: harness.runs(jobs[0]) == 1, "the first start")
    eventually(lambda: harness.unacked() == PREFETCHED, "the prefetched ones")
    return harness, worker, [job.job_id for job in jobs]


def test_a_worker_that_drains_finishes_what_runs_and_gives_back_the_rest_uncounted(
    draining: tuple[ServerHarness, Worker, list[str]], start_worker: Callable[..., Worker]
) -> None:
    harness, worker, ids = draining
    worker.kill(signal.SIGTERM)
    worker.await_log("Warm shutdown")
    harness.open_gate("drain")
    assert worker.wait() == 0
    assert harness.yard.job(ids[0]).result(0) == 0
    assert (harness.queued(), harness.unacked(), harness.delayed()) == (7, 0, 0)
    for job_id in ids[1:]:
        record = harness.yard.job(job_id).record()
        assert (record.state, record.number("deaths")) == (State.ACCEPTED, 0)
    start_worker("next")
    assert [harness.yard.job(job_id).result(30) for job_id in ids] == list(range(8))
    harness.await_quiet()
    assert [harness.runs(job_id) for job_id in ids] == [1] * 8
    assert {tuple(harness.event_names(job_id)) for job_id in ids} == {
        ("admit", "begin", "complete")
    }


def test_a_worker_that_is_told_to_stop_at_once_gives_its_job_back(
    draining: tuple[ServerHarness, Worker, list[str]], start_worker: Callable[..., Worker]
) -> None:
    harness, worker, ids = draining
    worker.kill(signal.SIGQUIT)
    worker.wait()
    harness.open_gate("drain")
    start_worker("next")
    assert [harness.yard.job(job_id).result(60) for job_id in ids] == list(range(8))
    harness.await_quiet()
    assert [harness.runs(job_id) for job_id in ids] == [2] + [1] * 7
    # Nobody failed: the job's own retries are untouched.
    assert "retry" not in harness.event_names(ids[0])
    assert harness.letters() == []


def test_a_worker_whose_terminal_sends_every_process_a_signal_still_drains(
    draining: tuple[ServerHarness, Worker, list[str]],
) -> None:
    harness, worker, ids = draining
    os.killpg(worker.pid, signal.SIGINT)
    worker.await_log("Warm shutdown")
    harness.open_gate("drain")
    # Celery's own word for Ctrl-C.
    assert worker.wait() == 1
    assert harness.yard.job(ids[0]).result(0) == 0
    assert harness.queued() == 7


def test_two_workers_share_one_queue_and_no_job_runs_twice(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    # Four at a gate: neither worker, of two processes each, can hold them alone.
    jobs = [harness.act(value=number, gate="both" if number < 4 else "") for number in range(100)]
    start_worker("one")
    start_worker("two")
    eventually(lambda: all(harness.runs(job) for job in jobs[:4]), "both workers at work")
    harness.open_gate("both")
    assert [job.result(60) for job in jobs] == list(range(100))
    harness.await_quiet()
    assert [harness.runs(job) for job in jobs] == [1] * 100
    workers = {event["worker"] for event in harness.events() if event["event"] == "begin"}
    assert {name.split("@")[0] for name in workers} == {"one", "two"}
