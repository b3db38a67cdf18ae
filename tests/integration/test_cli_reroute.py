"""`taskyard jobs reroute`: what a person at a shell and a script read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from servers import Servers
from support.relay import relaying
from support.shell import Shell, connected_shell
from support.waiting import eventually
from taskyard.database.tables import LEDGER, OUTBOX
from taskyard.jobs.states import State
from taskyard.records import Forward, Records
from taskyard.settings import Settings
from taskyard.store import connect

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = "The locator workers are down for maintenance today"


class Jobs:
    """Jobs in records and ledger; the test is their worker."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = connect(settings.need_redis_url())
        self.records = Records(self.client, settings)

    def queued(self, queue: str = "locator") -> str:
        job_id = str(uuid.uuid4())
        made = self.records.admit(job_id, job_type="t", queue=queue, priority=3, unique_for_s=0)
        self.records.confirm(job_id, made.epoch)
        facts = {"version": 1, "state": "accepted", "generation": 0, "seq": 0, "job_type": "t"}
        row = {"job_id": job_id, "epoch": made.epoch, "queue": queue, **facts}
        with self.database.begin() as connection:
            connection.execute(LEDGER.insert().values(updated_at=datetime.now(UTC), **row))
        return job_id

    def forward(self, job_id: str) -> None:
        """Take the job's message as a worker does."""
        place = {"job_type": "t", "queue": "locator"}
        answer = self.records.attempts.begin(
            job_id, None, holder="h", worker="w", process="p", **place
        )
        assert isinstance(answer, Forward)
        self.records.requeued(job_id, answer.epoch, answer.generation)

    def state(self, job_id: str) -> State:
        return self.records.read(job_id).state


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, empty_database: Engine, database_url: str) -> Shell:
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


@pytest.fixture
def jobs(shell: Shell, empty_database: Engine) -> Iterator[Jobs]:
    url, namespace = shell.variables["TASKYARD_REDIS_URL"], shell.variables["TASKYARD_NAMESPACE"]
    made = Jobs(Settings(redis_url=url, broker_url=url, namespace=namespace), empty_database)
    yield made
    made.client.close()
    with empty_database.begin() as connection:
        connection.execute(delete(OUTBOX))


def test_a_job_whose_message_waits_is_pending_and_the_line_says_where(
    shell: Shell, jobs: Jobs
) -> None:
    job_id = jobs.queued()
    with relaying(jobs.settings, jobs.database):
        ran = shell.run("jobs", "reroute", job_id, "--queue", "exec", "--reason", WHY)
        assert (ran.code, jobs.state(job_id)) == (0, State.REROUTED)
        assert f"pending  {job_id}: its message waits in locator; it moves to exec" in ran.out
        jobs.forward(job_id)
        request = ran.out.split()[-1]
        eventually(
            lambda: "applied" in shell.run("audit", "show", request).out, "the relay's answer"
        )
    assert jobs.records.read(job_id).queue == "exec"


def test_filters_name_the_queue_that_the_jobs_are_in(shell: Shell, jobs: Jobs) -> None:
    meant, other = [jobs.queued() for _ in range(2)], jobs.queued("plan")
    words = ("jobs", "reroute", "--queue", "exec", "--from-queue", "locator", "--reason", WHY)
    with relaying(jobs.settings, jobs.database):
        ran = shell.run(*words, "--confirm", "2", "--json")
    assert ran.code == 0, ran.err
    assert [one["outcome"] for one in ran.document["jobs"]] == ["pending"] * 2
    assert [jobs.state(one) for one in meant] == [State.REROUTED] * 2
    assert jobs.state(other) is State.ACCEPTED


def test_no_queue_an_unknown_one_and_the_same_one_are_refused(shell: Shell, jobs: Jobs) -> None:
    job_id = jobs.queued()
    missing = shell.run("jobs", "reroute", job_id, "--reason", WHY)
    assert (missing.code, "--queue QUEUE" in missing.err) == (2, True)
    same = shell.run("jobs", "reroute", job_id, "--queue", "locator", "--reason", WHY)
    assert (same.code, "it is in that queue already" in same.err) == (5, True)
    with relaying(jobs.settings, jobs.database):
        unknown = shell.run("jobs", "reroute", job_id, "--queue", "exek", "--reason", WHY)
    assert unknown.code == 5
    assert "exek" in unknown.out
    assert "exec" in unknown.out.replace("exek", "")
    assert jobs.state(job_id) is State.ACCEPTED
