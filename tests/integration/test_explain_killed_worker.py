"""After a worker was killed, `taskyard explain` says what its job waits for, and starts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import Servers
from support.explaining import Asker
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.control.explain import CauseKind as K
from taskyard.jobs.states import State

pytestmark = pytest.mark.slow

# Operators: by the role that they have in production.
AS_RUNTIME = True
# Each program that opens Taskyard's Redis transport returns dead workers' messages.
MESSAGE = {
    "redis": ("held by process ", "waits in queue 'exec'"),
    "rabbitmq": ("RabbitMQ returns it to queue 'exec'",),
}


@pytest.mark.slow  # a worker counts as dead 15 s after its last heartbeat
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_killed_workers_job_is_begun_again_by_the_worker_that_the_command_starts(
    broker: str, servers: Servers, tmp_path: Path, database_url: str
) -> None:
    url = servers.valkey_url()
    at = url if broker == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at)
    # In the folder of the killed worker, so that the next one has its job types.
    harness, asker = ServerHarness(settings), Asker(settings, database_url, tmp_path)
    try:
        with Worker(settings, tmp_path, queues=["exec"], name="first").start() as worker:
            job = harness.act(gate="g")
            harness.await_state(job, State.RUNNING)
            worker.kill_session()
            worker.wait()
        end_lease_in(harness, job.job_id, 600)
        first = asker.await_first(job.job_id, K.WORKER_DEAD)

        assert "attempt 1 began 20" in first["text"]
        assert "its worker first@" in first["text"]
        assert first["text"].partition("Its message: ")[2].startswith(MESSAGE[broker])
        assert first["commands"] == ["taskyard worker --pool exec"]
        end_lease_in(harness, job.job_id, -1)
        expired = asker.explain(job.job_id)["causes"][0]
        assert expired["kind"] == K.LEASE_EXPIRED
        harness.open_gate("g")
        with asker.running(expired):
            assert harness.await_end(job) is State.COMPLETED
    finally:
        harness.close()


def end_lease_in(harness: ServerHarness, job_id: str, seconds: float) -> None:
    """Set when the lease ends, so that a slow machine sees it valid and expired."""
    records = harness.yard.records
    until_us = records.now_us() + int(seconds * 1e6)
    records.client.hset(records.keys.record(job_id), "lease_until", until_us)
