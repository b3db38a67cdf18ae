"""Cancel with real workers on both brokers: what becomes of the job and of its message."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import pytest
from celery import chord
from sqlalchemy import Engine, select

from servers import Servers
from support.mirror import mirroring
from support.relay import relaying
from support.reply_queue import declared
from support.waiting import SOON_S, eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.client import JobHandle
from taskyard.control import Control, VerbOutcome
from taskyard.database.tables import LETTERS
from taskyard.errors import JobFailed, Refused
from taskyard.jobs.states import State
from taskyard.settings import Settings

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

BROKERS = ("redis", "rabbitmq")
OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "User cancellation via support ticket 12345"
# Renewed each third of it, so a handler sees a request within a second.
LEASE_S = 3


class Scene:
    """A worker of two processes on plan and exec, a mirror and a relay; no worker on locator."""

    def __init__(self, settings: Settings, worker: Worker, database: Engine) -> None:
        self.settings, self.worker, self.database = settings, worker, database
        self.harness = ServerHarness(settings)
        self.control = Control(database, self.harness.yard.records, OPS)

    def cancel(self, job: JobHandle | str) -> VerbOutcome:
        job_id = job if isinstance(job, str) else job.job_id
        return self.control.cancel(job_id, reason=WHY)

    def outcomes(self, outcome: VerbOutcome) -> list[str]:
        with self.database.connect() as connection:
            return [row["outcome"] for row in rows_of(connection, outcome.request_id)]

    def answer(self, outcome: VerbOutcome) -> str:
        """The last row of the audit log, once the relay has answered."""
        eventually(
            lambda: len(self.outcomes(outcome)) == 2,
            "the relay's answer",
            why=lambda: f"{self.outcomes(outcome)} {self.worker.log[-3000:]}",
        )
        return self.outcomes(outcome)[1]

    def await_seen(self, job: JobHandle) -> None:
        """Wait until a worker has taken the message of a cancelled job, and ended it."""
        eventually(
            lambda: "kept" not in job.record().fields,
            "its message was seen",
            why=lambda: f"{job.record().fields} {self.worker.log[-3000:]}",
        )
        assert job.state() is State.CANCELLED
        assert self.harness.runs(job) == 0

    def running(self, do: str, **options: str) -> JobHandle:
        job = self.harness.act(do, **options)
        self.harness.await_state(job, State.RUNNING)
        eventually(lambda: self.harness.runs(job) == 1, "its handler", why=lambda: self.worker.log)
        return job


@pytest.fixture(scope="module", params=BROKERS)
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=broker, lease_s=LEASE_S)
    worker = Worker(settings, tmp_path_factory.mktemp("cancel"), queues=("plan", "exec"))
    with worker.start(), mirroring(settings, database_url), relaying(settings, database):
        made = Scene(settings, worker, database)
        yield made
        made.harness.close()


@pytest.fixture
def busy(scene: Scene) -> Iterator[str]:
    """Both processes work until the gate that is yielded opens; what follows waits."""
    gate = uuid.uuid4().hex
    jobs = [scene.running("return", gate=gate) for _ in range(2)]
    yield gate
    scene.harness.open_gate(gate)
    for job in jobs:
        scene.harness.await_end(job)


def test_the_service_of_a_handler_that_stops_hears_of_it(scene: Scene) -> None:
    with declared(scene.settings) as replies:
        job = scene.harness.act("until cancelled", reply_to=replies.name)
        eventually(lambda: scene.harness.runs(job) == 1, "its handler")
        outcome = scene.cancel(job)
        assert scene.answer(outcome) == "applied"
        (reply,) = replies.take()
    assert reply.body == {"job_id": job.job_id, "state": "cancelled"}
    assert scene.harness.runs(job) == 1


def test_a_job_behind_busy_processes_does_not_run_and_its_message_leaves(
    scene: Scene, busy: str
) -> None:
    job = scene.harness.act()
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    assert job.state() is State.CANCELLED
    scene.harness.open_gate(busy)
    scene.await_seen(job)
    with pytest.raises(JobFailed, match="is cancelled"):
        job.result(SOON_S)


def test_a_job_that_waits_for_its_time_does_not_run(scene: Scene) -> None:
    job = scene.harness.act(countdown=2)
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    scene.await_seen(job)


def test_a_retry_that_waits_does_not_run(scene: Scene) -> None:
    job = scene.harness.act("fail", job_type="plan_act")
    scene.harness.await_state(job, State.RETRYING)
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    eventually(lambda: "kept" not in job.record().fields, "its message was seen")
    assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 1)


def test_a_job_without_any_worker_is_cancelled_and_does_not_run_when_one_comes(
    scene: Scene,
) -> None:
    job = scene.harness.act(job_type="locator_act")
    celery = scene.harness.yard.app.AsyncResult(job.job_id)
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    assert (celery.state, job.state()) == ("REVOKED", State.CANCELLED)
    late = Worker(scene.settings, scene.worker.folder, queues=("locator",), name="late")
    with late.start():
        scene.await_seen(job)


def test_a_handler_that_looks_stops_and_the_job_is_cancelled(scene: Scene) -> None:
    job = scene.running("until cancelled")
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 1)


def test_a_handler_that_does_not_look_completes_and_the_operator_hears_it(scene: Scene) -> None:
    gate = uuid.uuid4().hex
    job = scene.running("return", gate=gate, value="done")
    outcome = scene.cancel(job)
    assert (outcome.outcome, job.state()) == ("pending", State.RUNNING)
    assert "was asked to stop" in outcome.why
    scene.harness.open_gate(gate)
    assert job.result(SOON_S) == "done"
    assert scene.answer(outcome).startswith(f"refused: job {job.job_id} is completed")


def test_a_handler_that_hangs_is_cancelled_when_its_process_is_killed(scene: Scene) -> None:
    job = scene.running("hang")
    outcome = scene.cancel(job)
    assert outcome.outcome == "pending"
    os.kill(scene.harness.notes.run_facts(job.job_id)[0]["pid"], signal.SIGKILL)
    assert scene.answer(outcome) == "applied"
    assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 1)


def test_a_handler_that_fails_is_cancelled_without_a_retry_or_a_letter(scene: Scene) -> None:
    gate = uuid.uuid4().hex
    job = scene.running("gate then fail", gate=gate)
    outcome = scene.cancel(job)
    assert outcome.outcome == "pending"
    scene.harness.open_gate(gate)
    assert scene.answer(outcome) == "applied"
    assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 1)


def test_a_dead_letter_is_closed_with_its_job(scene: Scene) -> None:
    job = scene.harness.act("fail", job_type="locator_act", queue="exec", code="hopeless")
    scene.harness.await_state(job, State.DEAD_LETTERED)
    outcome = scene.cancel(job)
    assert scene.answer(outcome) == "applied"
    with scene.database.connect() as connection:
        query = select(LETTERS.c.status).where(LETTERS.c.original_request_id == job.job_id)
        assert list(connection.scalars(query)) == ["cancelled"]


def test_a_completed_job_is_protected(scene: Scene) -> None:
    job = scene.harness.act(value=7)
    assert job.result(SOON_S) == 7
    with pytest.raises(Refused, match="is completed, so it cannot be cancelled"):
        scene.cancel(job)


def test_a_chord_whose_part_is_cancelled_fails_as_with_celerys_revoke(
    scene: Scene, busy: str
) -> None:
    if scene.settings.need_broker_url().startswith("amqp"):
        pytest.skip("test_install_cancel.py has it on RabbitMQ, in a client that closes its pools")
    app = scene.harness.yard.app
    queues = [scene.settings.broker_name(name) for name in ("exec", "plan")]
    part = str(uuid.uuid4())
    header = [
        app.signature("raw_act", args=[1], queue=queues[0]),
        app.signature("raw_act", args=[2], queue=queues[0], task_id=part),
    ]
    body = app.signature("sum_act", queue=queues[1])

    result = chord(header, app=app)(body)
    outcome = scene.cancel(part)
    assert scene.answer(outcome) == "applied"
    scene.harness.open_gate(busy)
    eventually(lambda: result.state == "FAILURE", "the chord's end", why=lambda: scene.worker.log)
    assert type(result.result).__name__ == "ChordError"
