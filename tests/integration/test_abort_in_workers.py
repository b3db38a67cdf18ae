"""Abort and force-complete with real workers: what becomes of the job, its attempt, its message."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from celery import chain
from sqlalchemy import Engine, select

from servers import Servers
from support.mirror import mirroring
from support.operated import DONE, WHY, Scene, working
from support.reply_queue import declared
from support.waiting import SOON_S
from support.worker import Worker
from taskyard.database.tables import LETTERS
from taskyard.errors import InvalidPayload, JobFailed, Refused
from taskyard.jobs.states import State
from taskyard.records import Stop

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

BROKERS = ("redis", "rabbitmq")


@pytest.fixture(scope="module", params=BROKERS)
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("abort")
    with (
        working(request.param, servers, database, folder) as made,
        mirroring(made.settings, database_url),
    ):
        yield made


@pytest.mark.parametrize("do", ["return", "hang"])
def test_a_running_attempt_is_killed_and_no_other_process_is_touched(scene: Scene, do: str) -> None:
    """Also one that hangs in a C call, which no exception reaches."""
    gates = [uuid.uuid4().hex for _ in range(2)]
    job, other = scene.running(do, gate=gates[0]), scene.running(gate=gates[1])
    began_s = monotonic()
    outcome = scene.abort(job)
    assert (outcome.outcome, outcome.attempt) == ("applied", "was stopped")
    assert monotonic() - began_s < SOON_S
    requested, applied = scene.audited(outcome)
    assert (requested["outcome"], applied["detail"]["attempt"]) == ("requested", "was stopped")
    assert (requested["action_type"], requested["reason"]) == ("abort_request", WHY)
    assert job.state() is State.ABORTED
    with pytest.raises(JobFailed, match="is aborted"):
        job.result(SOON_S)
    scene.harness.open_gate(gates[0])
    scene.harness.open_gate(gates[1])
    other.result(SOON_S)
    assert (scene.harness.runs(job), scene.harness.runs(other)) == (1, 1)
    scene.await_no_message()


def test_the_service_of_a_killed_attempt_hears_of_it(scene: Scene) -> None:
    with declared(scene.settings) as replies:
        job = scene.running("hang", reply_to=replies.name)
        outcome = scene.abort(job)
        (reply,) = replies.take()
    assert reply.body == {"job_id": job.job_id, "state": "aborted"}
    assert reply.properties["correlation_id"] == job.job_id
    detail = scene.audited(outcome)[-1]["detail"]
    assert detail["attempt"] == "was stopped"
    assert detail["reply"] == f"published to queue {replies.name}"
    scene.await_no_message()


def test_a_waiting_job_is_aborted_and_its_message_runs_nothing(scene: Scene) -> None:
    job = scene.harness.act(countdown=2)
    outcome = scene.abort(job)
    assert (outcome.outcome, outcome.attempt) == ("applied", "")
    scene.await_seen(job)
    assert (job.state(), scene.harness.runs(job)) == (State.ABORTED, 0)


def test_a_forged_request_stops_nothing(scene: Scene) -> None:
    gate = uuid.uuid4().hex
    job = scene.running(gate=gate)
    record = job.record()
    stops = scene.harness.yard.records.stops
    for entry in (b"{", b'{"job_id": 1}'):
        scene.harness.redis.rpush(
            f"{scene.settings.namespace}:stops:{record.fields['worker']}", entry
        )
    stops.ask(record.fields["worker"], Stop(job.job_id, record.number("token"), "forged"))
    scene.worker.await_log("is ignored: the job is running, and no operator has ended or moved it")
    scene.harness.open_gate(gate)
    job.result(SOON_S)
    assert scene.harness.runs(job) == 1


def test_a_running_job_is_completed_with_the_operators_result(scene: Scene) -> None:
    job = scene.running("hang")
    outcome = scene.complete(job, {"sent": "by hand"})
    assert (outcome.outcome, outcome.attempt) == ("applied", "was stopped")
    assert job.result(SOON_S) == {"sent": "by hand"}
    requested, _ = scene.audited(outcome)
    assert requested["detail"]["summary"] == DONE
    scene.await_no_message()
    assert (job.state(), scene.harness.runs(job)) == (State.COMPLETED, 1)
    assert scene.harness.yard.app.AsyncResult(job.job_id).result == {"sent": "by hand"}


def test_a_job_without_any_worker_is_completed(scene: Scene) -> None:
    job = scene.harness.act(job_type="locator_act")
    assert scene.complete(job, 7).outcome == "applied"
    assert job.result(SOON_S) == 7
    late = Worker(scene.settings, scene.worker.folder, queues=("locator",), name="late")
    with late.start():
        scene.await_seen(job)
    assert scene.harness.runs(job) == 0


def test_a_dead_letter_is_closed_with_its_job(scene: Scene) -> None:
    job = scene.harness.act("fail", job_type="locator_act", queue="exec", code="hopeless")
    scene.harness.await_state(job, State.DEAD_LETTERED)
    assert scene.complete(job, "done").outcome == "applied"
    with scene.database.connect() as connection:
        query = select(LETTERS.c.status).where(LETTERS.c.original_request_id == job.job_id)
        assert list(connection.scalars(query)) == ["completed"]
    assert job.result(SOON_S) == "done"


def test_a_completed_job_is_protected_from_both(scene: Scene) -> None:
    job = scene.harness.act(value=7)
    assert job.result(SOON_S) == 7
    with pytest.raises(Refused, match="is completed, so it cannot be aborted"):
        scene.abort(job)
    with pytest.raises(Refused, match="is completed, so it cannot be completed by hand"):
        scene.complete(job, 8)
    assert job.result(SOON_S) == 7


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"result": {1, 2}}, "expected a result that is JSON"),
        ({"result": float("nan")}, "expected a result that is JSON"),
        ({"result": "x" * 300_000}, "max_result_bytes"),
        ({"summary": "done"}, "how the job was resolved"),
    ],
)
def test_a_result_that_no_caller_can_read_is_refused(
    scene: Scene, given: dict[str, Any], said: str
) -> None:
    job = scene.harness.act(job_type="locator_act")
    facts = {"reason": WHY, "summary": DONE, **given}
    with pytest.raises(InvalidPayload, match=said):
        scene.control.complete(job.job_id, **facts)
    assert job.state() is State.ACCEPTED


def test_the_chain_of_a_dead_letter_goes_on_with_the_operators_result(scene: Scene) -> None:
    app, queue = scene.harness.yard.app, scene.settings.broker_name("exec")
    first = app.signature("locator_act", args=[{"do": "fail", "code": "hopeless"}], queue=queue)
    last = app.signature("sum_act", queue=queue)
    with app.connection_for_write() as connection:
        result = chain(first, last, app=app).apply_async(connection=connection)
    dead = scene.harness.yard.job(result.parent.id)
    scene.harness.await_state(dead, State.DEAD_LETTERED)
    outcome = scene.complete(dead, [3, 4])
    assert outcome.outcome == "applied"
    _, applied = scene.audited(outcome)
    assert applied["detail"]["message"].startswith("its message was published to queue exec again")
    follower = scene.harness.yard.job(result.id)
    scene.harness.await_state(follower, State.COMPLETED)
    assert follower.result(SOON_S) == 7
    assert scene.harness.runs(dead) == 1
    scene.await_seen(dead)
