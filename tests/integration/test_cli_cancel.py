"""`taskyard jobs cancel`: what a person at a shell and a script are asked, told and refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select

from servers import Servers
from support.relay import relaying
from support.shell import Shell, connected_shell
from support.waiting import eventually
from taskyard.database.tables import AUDIT, LEDGER, OUTBOX
from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = "User cancellation via support ticket 12345"


class Jobs:
    """Jobs in records and ledger, without any worker."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = connect(settings.need_redis_url())
        self.records = Records(self.client, settings)
        # No row of the audit log is removed, so those of earlier tests are left out.
        with database.connect() as connection:
            self.after = connection.scalar(select(func.max(AUDIT.c.id))) or 0

    def queued(self, queue: str = "exec") -> str:
        job_id = str(uuid.uuid4())
        made = self.records.admit(job_id, job_type="t", queue=queue, priority=3, unique_for_s=0)
        facts = {"version": 1, "state": "accepted", "generation": 0, "seq": 0, "job_type": "t"}
        row = {"job_id": job_id, "epoch": made.epoch, "queue": queue, **facts}
        with self.database.begin() as connection:
            connection.execute(LEDGER.insert().values(updated_at=datetime.now(UTC), **row))
        return job_id

    def state(self, job_id: str) -> State:
        return self.records.read(job_id).state

    def audited(self) -> list[str]:
        with self.database.connect() as connection:
            query = select(AUDIT.c.outcome).where(AUDIT.c.id > self.after)
            return list(connection.scalars(query.order_by(AUDIT.c.id)))


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


def test_jobs_are_cancelled_by_id_by_its_start_and_from_standard_input(
    shell: Shell, jobs: Jobs
) -> None:
    whole, start, given = jobs.queued(), jobs.queued(), jobs.queued()
    with relaying(jobs.settings, jobs.database):
        words = ("jobs", "cancel", whole, start[:13], "-", "--reason", WHY, "--json")
        ran = shell.run(*words, stdin=f"{given} and more\n")
        eventually(lambda: jobs.audited().count("applied") == 3, "three answers")
    assert ran.code == 0, ran.err
    assert {one["job_id"] for one in ran.document["jobs"]} == {whole, start, given}
    assert [jobs.state(one) for one in (whole, start, given)] == [State.CANCELLED] * 3


def test_without_a_relay_a_person_reads_that_it_is_pending_and_what_to_do(
    shell: Shell, jobs: Jobs
) -> None:
    ran = shell.run("jobs", "cancel", jobs.queued(), "--reason", WHY)
    assert ran.code == 0
    assert ran.out.startswith("pending  ")
    assert "if none runs, start one: taskyard relay. See: taskyard audit show " in ran.out


def test_filters_need_the_number_of_jobs_and_touch_no_other_job(shell: Shell, jobs: Jobs) -> None:
    meant, other = [jobs.queued("plan") for _ in range(3)], jobs.queued("exec")
    filters = ("jobs", "cancel", "--queue", "plan", "--reason", WHY)
    unsaid = shell.run(*filters)
    assert unsaid.code == 2
    assert "--confirm 3" in unsaid.err
    wrong = shell.run(*filters, "--confirm", "4")
    assert wrong.code == 2
    assert "match 3 jobs and not 4, so nothing was done" in wrong.err
    assert jobs.audited() == []
    with relaying(jobs.settings, jobs.database):
        ran = shell.run(*filters, "--confirm", "3")
        eventually(lambda: jobs.audited().count("applied") == 3, "three answers")
    assert ran.code == 0, ran.err
    assert "3 jobs: 3 accepted" in ran.out
    assert [jobs.state(one) for one in meant] == [State.CANCELLED] * 3
    assert jobs.state(other) is State.ACCEPTED


def test_a_dry_run_shows_the_jobs_and_changes_nothing(shell: Shell, jobs: Jobs) -> None:
    job_id = jobs.queued("plan")
    ran = shell.run("jobs", "cancel", "--type", "t", "--dry-run")
    assert (ran.code, "1 job: 1 accepted" in ran.out) == (0, True)
    shown = shell.run("jobs", "cancel", "--type", "t", "--dry-run", "--json").document
    assert (shown["count"], shown["jobs"][0]["job_id"]) == (1, job_id)
    assert (jobs.audited(), jobs.state(job_id)) == ([], State.ACCEPTED)


def test_an_id_that_nothing_knows_is_cancelled_only_if_it_is_whole(
    shell: Shell, jobs: Jobs
) -> None:
    ran = shell.run("jobs", "cancel", "0123456789abcdef", "--reason", WHY)
    assert ran.code == 4
    unknown = str(uuid.uuid4())
    with relaying(jobs.settings, jobs.database):
        ran = shell.run("jobs", "cancel", unknown, "--reason", WHY)
        eventually(lambda: jobs.state(unknown) is State.CANCELLED, "the cancelled id")
    assert (ran.code, "has no record" in ran.err) == (0, True)


def test_a_running_job_shows_the_request_until_its_attempt_ends(shell: Shell, jobs: Jobs) -> None:
    job_id = jobs.queued()
    facts = {"holder": "h", "worker": "w@host", "process": "1", "job_type": "t", "queue": "exec"}
    jobs.records.attempts.begin(job_id, None, **facts)
    with relaying(jobs.settings, jobs.database):
        ran = shell.run("jobs", "cancel", job_id, "--reason", WHY)
        assert ran.out.startswith(f"pending  {job_id}: worker w@host runs job")
        shown = shell.run("jobs", "show", job_id)
    request = jobs.records.read(job_id).fields["cancel"]
    assert "has asked its attempt to stop; how that ends decides" in shown.out
    assert f"taskyard audit show {request}" in shown.out


def test_one_refusal_of_several_is_shown_and_the_others_are_done(shell: Shell, jobs: Jobs) -> None:
    ended, queued = jobs.queued(), jobs.queued()
    jobs.client.hset(jobs.records.keys.record(ended), "state", "completed")
    with relaying(jobs.settings, jobs.database):
        ran = shell.run("jobs", "cancel", ended, queued, "--reason", WHY)
        eventually(lambda: jobs.state(queued) is State.CANCELLED, "the other job")
    assert ran.code == 5
    assert f"refused  {ended}: job {ended} is completed, so it cannot be cancelled." in ran.out


def test_a_job_outside_of_a_tokens_bounds_is_one_of_the_outcomes(shell: Shell, jobs: Jobs) -> None:
    words = ("b@example.com", "--role", "operator", "--queues", "exec", "--reason", WHY)
    token = shell.run("tokens", "create", *words).out.strip()
    within, outside, also = jobs.queued(), jobs.queued("plan"), jobs.queued()
    with relaying(jobs.settings, jobs.database):
        ran = shell.run("jobs", "cancel", within, outside, also, "--reason", WHY,
                        TASKYARD_TOKEN=token)  # fmt: skip
        eventually(lambda: jobs.state(also) is State.CANCELLED, "the last job")
    assert ran.code == 6
    assert f"refused  {outside}: b@example.com is bound to queues exec" in ran.out
    assert [jobs.state(one) for one in (within, outside)] == [State.CANCELLED, State.ACCEPTED]
    # While nothing was requested, the first denial ends the command.
    ran = shell.run("jobs", "cancel", outside, also, "--reason", WHY, TASKYARD_TOKEN=token)
    assert (ran.code, ran.out) == (6, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "got neither"),
        (("0" * 36, "--queue", "plan"), "got both"),
        (("--queue", "plan", "--reason", WHY), "no live job matches"),
    ],
)
def test_a_call_that_chooses_no_job_says_what_was_expected(
    shell: Shell, jobs: Jobs, words: tuple[str, ...], said: str
) -> None:
    ran = shell.run("jobs", "cancel", *words)
    assert ran.code in (2, 4)
    assert said in ran.err


@pytest.mark.parametrize("reason", [(), ("--reason", "fix it")])
def test_a_reason_is_asked_for(shell: Shell, jobs: Jobs, reason: tuple[str, ...]) -> None:
    job_id = jobs.queued()
    ran = shell.run("jobs", "cancel", job_id, *reason)
    assert ran.code == 2
    assert "Infrastructure recovered after 2-hour outage" in ran.err
    assert jobs.state(job_id) is State.ACCEPTED


def test_without_an_identity_nothing_is_cancelled(shell: Shell, jobs: Jobs) -> None:
    job_id = jobs.queued()
    ran = shell.run("jobs", "cancel", job_id, "--reason", WHY, TASKYARD_TRUST_LOCAL="0")
    assert ran.code == 6
    assert jobs.state(job_id) is State.ACCEPTED


def test_without_postgres_nothing_is_cancelled(shell: Shell, jobs: Jobs) -> None:
    job_id = jobs.queued()
    down: dict[str, Any] = {"TASKYARD_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    ran = shell.run("jobs", "cancel", job_id, "--reason", WHY, **down)
    assert ran.code == 3
    assert jobs.state(job_id) is State.ACCEPTED
