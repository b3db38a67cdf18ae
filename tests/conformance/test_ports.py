"""What every pool's ports promise, by real workers and brokers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from conformance.port_stage import (
    BROKERS,
    WAYS,
    PortStage,
    RunningWorker,
    fresh_gate,
    installed,
    opened,
)
from servers import Servers
from support.waiting import eventually
from support.worker import gone

CLOCK_US = 5_000_000


@pytest.fixture(scope="module", params=WAYS)
def stage(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PortStage]:
    with opened(request.param, servers, tmp_path_factory.mktemp("ports")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(stage: PortStage) -> RunningWorker:
    """A worker of one process, for tests that leave it as they found it."""
    return stage.worker("shared")


@pytest.fixture(params=WAYS)
def apart(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PortStage]:
    """A stage of a test's own, whose workers it starts and ends."""
    with opened(request.param, servers, tmp_path_factory.mktemp("apart")) as running:
        yield running


@pytest.fixture
def gate(stage: PortStage) -> Iterator[str]:
    name = fresh_gate()
    yield name
    stage.open(name)
    stage.await_quiet()


# -- list what runs and what waits -----------------------------------------------------------------


def test_what_runs_is_listed_with_its_token_its_start_and_its_process(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    before_us = int(time.time() * 1_000_000)
    job_id = stage.gated(gate)
    stage.await_begun(job_id)
    token = shared.await_token(job_id)
    listed = shared.running(job_id)
    assert listed is not None
    assert token == int(stage.record(job_id)["token"])
    assert listed["queue"]
    assert listed["job_type"] in ("exec_act", "legacy.gated")
    assert listed["process"] in shared.call("processes")
    assert abs(listed["started_us"] - before_us) < 40 * CLOCK_US
    stage.open(gate)
    eventually(lambda: shared.running(job_id) is None, "what has ended is not listed")


def test_what_is_held_and_not_begun_is_listed_with_what_it_waits_for(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    first, second, third = (stage.gated(gate) for _ in range(3))
    stage.await_begun(first)
    shared.await_waiting(second)
    shared.await_waiting(third)
    assert shared.call("withdraw", then="hold", job_ids=[third]) == 1
    assert (shared.waits_for(second), shared.waits_for(third)) == ("process", "return")
    assert shared.waits_for(first) is None, "it runs"
    assert shared.running(second) is None, "it waits"
    assert shared.call("withdraw", then="give back", job_ids=[third]) == 1


# -- stop an attempt -------------------------------------------------------------------------------


def test_a_token_that_is_not_current_stops_nothing(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    job_id = stage.gated(gate)
    token = shared.await_token(job_id)
    for force in ("soft", "hard"):
        assert shared.call("stop", job_id=job_id, token=token - 1, force=force) is False
        assert shared.call("stop", job_id="no-such-job", token=token, force=force) is False
    assert shared.await_token(job_id) == token
    stage.open(gate)
    stage.await_state(job_id, "completed")
    assert shared.call("stop", job_id=job_id, token=token, force="hard") is False
    assert stage.runs(job_id) == 1


def test_a_soft_stop_is_raised_in_the_handler_and_its_process_lives_on(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    job_id = stage.gated(gate)
    token = shared.await_token(job_id)
    stage.await_begun(job_id)
    processes = shared.call("processes")
    assert shared.call("stop", job_id=job_id, token=token, force="soft") is True
    cause = stage.await_state(job_id, "dead_lettered")["cause"]
    assert "SoftTimeLimitExceeded" in cause
    assert shared.call("processes") == processes


def test_a_hard_stop_is_a_death_and_its_token_stops_no_later_attempt(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    job_id = stage.gated(gate)
    stage.await_begun(job_id)
    token = shared.await_token(job_id)
    assert shared.call("stop", job_id=job_id, token=token, force="hard") is True
    stage.await_begun(job_id, 2)
    later = shared.await_token(job_id)
    assert later > token
    assert shared.call("stop", job_id=job_id, token=token, force="hard") is False
    assert int(stage.record(job_id)["deaths"]) == 2, "one death, and one begin without an end yet"
    stage.open(gate)
    stage.await_state(job_id, "completed")
    assert stage.runs(job_id) == 2


def test_an_attempt_whose_job_an_operator_has_ended_is_stopped_and_does_not_run_again(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    job_id = stage.gated(gate)
    stage.await_begun(job_id)
    token = shared.await_token(job_id)
    stage.end_by_an_operator(job_id, "aborted")
    assert shared.call("stop", job_id=job_id, token=token, force="hard") is True
    stage.await_quiet()
    assert (stage.runs(job_id), stage.record(job_id)["state"]) == (1, "aborted")


# -- end a process ---------------------------------------------------------------------------------


def test_a_process_that_is_ended_is_replaced_and_its_job_has_died_once(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    job_id = stage.gated(gate)
    stage.await_begun(job_id)
    (pid,) = shared.call("processes")
    assert shared.call("end process", pid=os.getpid()) is False, "none of this worker's"
    assert shared.call("end process", pid=pid) is True
    eventually(lambda: gone(pid), "the process has ended")
    stage.await_begun(job_id, 2)
    assert pid not in shared.call("processes")
    assert shared.call("end process", pid=pid) is False
    assert int(stage.record(job_id)["deaths"]) == 2, "one death, and one begin without an end yet"
    stage.open(gate)
    stage.await_state(job_id, "completed")


# -- report an outcome -----------------------------------------------------------------------------


def test_an_attempt_over_its_hard_limit_is_a_failure_and_no_death(
    stage: PortStage, shared: RunningWorker
) -> None:
    job_id = stage.overtime()
    record = stage.await_state(job_id, "dead_lettered")
    assert "hard time limit exceeded" in record["cause"]
    assert '"code": "timeout"' in record["cause"]
    stage.await_quiet()
    assert shared.running(job_id) is None


# -- take messages ---------------------------------------------------------------------------------


def test_what_is_withdrawn_and_given_back_comes_again_and_runs_once(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    first, second = stage.gated(gate), stage.gated(gate)
    stage.await_begun(first)
    shared.await_waiting(second)
    assert shared.call("withdraw", then="give back", job_ids=[second]) == 1
    stage.open(gate)
    stage.await_state(second, "completed")
    assert stage.runs(second) == 1


def test_a_cancelled_jobs_message_is_withdrawn_and_acknowledged_and_never_runs(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    first, second, third = (stage.gated(gate) for _ in range(3))
    stage.await_begun(first)
    shared.await_waiting(third)
    stage.end_by_an_operator(second, "cancelled")
    assert shared.call("withdraw", then="acknowledge", job_ids=[second]) == 1
    eventually(lambda: stage.unacknowledged() == 2, "the broker has forgotten the message")
    stage.open(gate)
    stage.await_state(third, "completed")
    assert (stage.runs(second), stage.runs(third)) == (0, 1)


def test_what_is_held_comes_back_after_its_wait_and_runs_once(
    stage: PortStage, shared: RunningWorker, gate: str
) -> None:
    first, second = stage.gated(gate), stage.gated(gate)
    stage.await_begun(first)
    shared.await_waiting(second)
    assert shared.call("withdraw", then="hold a moment", job_ids=[second]) == 1
    shared.await_waiting(second)
    stage.open(gate)
    stage.await_state(second, "completed")
    assert stage.runs(second) == 1


def test_what_runs_cannot_be_withdrawn(stage: PortStage, shared: RunningWorker, gate: str) -> None:
    job_id = stage.gated(gate)
    stage.await_begun(job_id)
    assert shared.call("withdraw", then="give back", job_ids=[job_id]) == 0


# -- drain -----------------------------------------------------------------------------------------


def test_a_drain_takes_no_more_gives_back_what_is_held_and_lists_what_still_runs(
    apart: PortStage,
) -> None:
    gate, leaving = fresh_gate(), apart.worker("leaving")
    running, waiting, held = (apart.gated(gate) for _ in range(3))
    apart.await_begun(running)
    leaving.await_waiting(waiting)
    leaving.await_waiting(held)
    leaving.call("withdraw", then="hold", job_ids=[held])
    leaving.call("stop taking")
    assert leaving.call("is taking") is False
    leaving.call("end holding")
    leaving.call("withdraw", then="give back")
    eventually(lambda: apart.unacknowledged() == 1, "all but one are back")
    late = apart.gated(gate)
    assert [each["job_id"] for each in leaving.call("running")] == [running]
    apart.worker("other")
    apart.open(gate)
    for job_id in (running, waiting, held, late):
        apart.await_state(job_id, "completed")
        assert apart.runs(job_id) == 1
    apart.await_quiet()
    assert leaving.call("running") == leaving.call("waiting") == []


def test_a_worker_killed_between_a_withdrawal_and_its_settlement_loses_nothing(
    apart: PortStage,
) -> None:
    gate, first = fresh_gate(), apart.worker("first")
    running, waiting = apart.gated(gate), apart.gated(gate)
    apart.await_begun(running)
    first.await_waiting(waiting)
    assert first.call("withdraw", then="nothing", job_ids=[waiting]) == 1
    first.kill()
    apart.age_heartbeats()
    apart.worker("second")
    apart.open(gate)
    apart.await_state(waiting, "completed")
    assert apart.runs(waiting) == 1


# -- what only an installed app has ----------------------------------------------------------------


@pytest.mark.parametrize("broker", BROKERS)
def test_what_waits_for_its_date_or_its_rate_is_listed_and_can_be_withdrawn(
    broker: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with installed(broker, servers, tmp_path_factory.mktemp("dates")) as stage:
        worker = stage.worker("dates")
        later = [stage.tasks.watched.apply_async(countdown=600).id for _ in range(2)]
        slow = [stage.tasks.left_alone.delay().id for _ in range(2)]
        for job_id in later:
            worker.await_waiting(job_id, "date")
        for job_id in slow:
            stage.await_begun(job_id)
        stage.tasks.app.control.rate_limit("legacy.left_alone", "1/h", reply=True, timeout=9)
        # The first takes the only one that this hour has.
        rated = [stage.tasks.left_alone.delay().id for _ in range(3)]
        for job_id in rated[1:]:
            worker.await_waiting(job_id, "rate limit")
        assert worker.call("withdraw", then="acknowledge", job_ids=[later[0], rated[1]]) == 2
        assert worker.waits_for(later[1]) == "date"
        assert (worker.waits_for(later[0]), worker.waits_for(rated[1])) == (None, None)
        worker.call("stop taking")
        assert worker.call("withdraw", then="give back") == 2
        stage.await_quiet()
        assert [stage.runs(job_id) for job_id in (*later, *rated[1:])] == [0] * 4


def test_a_greenlet_is_stopped_hard_and_its_death_counts(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with installed("redis", servers, tmp_path_factory.mktemp("greenlets")) as stage:
        gate, worker = fresh_gate(), stage.worker("greenlets", "-P", "gevent", concurrency=4)
        job_id, neighbour = stage.gated(gate), stage.gated(gate)
        stage.await_begun(job_id)
        stage.await_begun(neighbour)
        token = worker.await_token(job_id)
        assert worker.refusal_of("stop", job_id=job_id, token=token, force="soft")
        assert worker.call("stop", job_id=job_id, token=token, force="hard") is True
        stage.await_begun(job_id, 2)
        assert worker.await_token(job_id) > token
        stage.open(gate)
        for each in (job_id, neighbour):
            stage.await_state(each, "completed")
        assert (stage.runs(job_id), stage.runs(neighbour)) == (2, 1)
        stage.await_quiet()


# -- what a pool cannot do -------------------------------------------------------------------------


def test_a_pool_without_processes_says_what_it_cannot_do(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with opened("installed on redis", servers, tmp_path_factory.mktemp("threads")) as stage:
        gate, worker = fresh_gate(), stage.worker("threads", "-P", "threads")
        job_id = stage.gated(gate)
        token = worker.await_token(job_id)
        assert worker.call("processes") == []
        for act, arguments in (
            ("stop an attempt softly", {"act": "stop", "force": "soft"}),
            ("stop an attempt", {"act": "stop", "force": "hard"}),
        ):
            refusal = worker.refusal_of(job_id=job_id, token=token, **arguments)
            assert refusal == (
                f"cannot {act}: this worker's pool is celery.concurrency.thread.TaskPool, which "
                "runs jobs in the worker's main process. Use the prefork pool (the default), or "
                "stop the worker"
            )
        assert worker.refusal_of("end process", pid=1).startswith("cannot end a process: ")
        stage.open(gate)
        stage.await_state(job_id, "completed")
