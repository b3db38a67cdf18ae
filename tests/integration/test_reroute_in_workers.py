"""Reroute with real workers on both brokers: where the job runs, and what the operator hears."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.mirror import mirroring
from support.operated import OPS, Scene, working
from support.waiting import SOON_S, eventually
from support.worker import Worker
from taskyard.client import JobHandle
from taskyard.control import Control, VerbOutcome
from taskyard.errors import InvalidPayload, NotPermitted, Refused
from taskyard.jobs.states import State
from taskyard.ledger import history

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

BROKERS = ("redis", "rabbitmq")
WHY = "The workers of this queue are down for maintenance today"


@pytest.fixture(scope="module", params=BROKERS)
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("reroute")
    with (
        working(request.param, servers, database, folder) as made,
        mirroring(made.settings, database_url),
    ):
        yield made


def reroute(scene: Scene, job: JobHandle, queue: str = "plan", **options: Any) -> VerbOutcome:
    control = Control(scene.database, scene.harness.yard.records, OPS)
    return control.reroute(job.job_id, queue, reason=WHY, **options)


def last(scene: Scene, outcome: VerbOutcome) -> dict[str, Any]:
    """The relay's answer in the audit log."""
    eventually(
        lambda: len(scene.audited(outcome)) == 2,
        "the relay's answer",
        why=lambda: f"{scene.audited(outcome)} {scene.worker.log[-3000:]}",
    )
    return scene.audited(outcome)[1]


def event_names(scene: Scene, job: JobHandle) -> list[str]:
    """The job's events in Postgres, once all are there."""
    version = job.record().number("version")

    def names() -> list[str]:
        with scene.database.connect() as connection:
            return [event["event"] for event in history(connection, job.job_id)]

    eventually(lambda: len(names()) >= version, f"{version} events", why=lambda: str(names()))
    return names()


def test_a_job_that_waits_for_its_time_runs_in_its_new_queue(scene: Scene) -> None:
    job = scene.harness.act(countdown=2, value=5)
    outcome = reroute(scene, job)
    answer = last(scene, outcome)
    assert (answer["outcome"], answer["detail"]["to_queue"]) == ("applied", "plan")
    assert scene.audited(outcome)[0]["action_type"] == "manual_reroute"
    assert scene.audited(outcome)[0]["detail"]["to_queue"] == "plan"
    assert (job.result(SOON_S), scene.harness.runs(job)) == (5, 1)
    assert job.record().queue == "plan"
    assert event_names(scene, job) == ["admit", "reroute", "requeue", "begin", "complete"]


def test_a_retry_that_waits_runs_in_its_new_queue(scene: Scene) -> None:
    job = scene.harness.act("fail", job_type="plan_act", times=1, value=6)
    scene.harness.await_state(job, State.RETRYING)
    assert last(scene, reroute(scene, job, "exec"))["outcome"] == "applied"
    assert (job.result(SOON_S), scene.harness.runs(job)) == (6, 2)


def test_a_running_attempt_is_killed_and_the_job_runs_again_in_its_new_queue(
    scene: Scene,
) -> None:
    job = scene.running("hang", times=1, value=7)
    answer = last(scene, reroute(scene, job))
    assert (answer["outcome"], answer["detail"]["attempt"]) == ("applied", "was stopped")
    assert (job.result(SOON_S), scene.harness.runs(job)) == (7, 2)
    names = event_names(scene, job)
    assert names == ["admit", "begin", "reroute", "requeue", "begin", "complete"]


def test_a_message_in_a_queue_without_workers_moves_when_one_comes_or_the_relay_fetches_it(
    scene: Scene,
) -> None:
    job = scene.harness.act(job_type="locator_act", value=8)
    outcome = reroute(scene, job, "exec")
    if not scene.settings.need_broker_url().startswith("amqp"):
        assert outcome.outcome == "applied"
        assert (job.result(SOON_S), scene.harness.runs(job)) == (8, 1)
        return
    assert outcome.outcome == "pending"
    assert outcome.why.startswith("its message waits in locator; it moves to exec when a worker")
    assert job.state() is State.REROUTED
    late = Worker(scene.settings, scene.worker.folder, queues=("locator",), name="late")
    with late.start():
        late.await_log("its message goes to queue exec")
        assert (job.result(SOON_S), scene.harness.runs(job)) == (8, 1)
    assert last(scene, outcome)["outcome"] == "applied"


def test_a_rerouted_job_is_rerouted_again_and_both_requests_are_applied(scene: Scene) -> None:
    job = scene.harness.act(countdown=3, value=9)
    first = reroute(scene, job, "locator")
    second = reroute(scene, job, "plan")
    assert last(scene, second)["outcome"] == "applied"
    # The first one changed the record, before the second did.
    assert last(scene, first)["outcome"] == "applied"
    assert (job.result(SOON_S), job.record().queue) == (9, "plan")


def test_a_rerouted_job_is_cancelled_and_its_message_runs_nothing(scene: Scene) -> None:
    job = scene.harness.act(countdown=5)
    reroute(scene, job)
    scene.control.cancel(job.job_id, reason=WHY)
    scene.await_seen(job)
    assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 0)


def test_an_unknown_queue_is_refused_with_the_nearest_names(scene: Scene) -> None:
    job = scene.harness.act(job_type="locator_act")
    answer = last(scene, reroute(scene, job, "plann"))
    assert answer["outcome"].startswith("refused: ")
    assert "plan" in answer["outcome"]
    assert job.state() is State.ACCEPTED
    with pytest.raises(Refused, match="was not rerouted: it is in that queue already"):
        reroute(scene, job, "locator")
    with pytest.raises(InvalidPayload, match="a queue's name has"):
        reroute(scene, job, "plan\x1b[2J")


def test_a_dead_letter_and_an_ended_job_are_refused_with_the_remedy(scene: Scene) -> None:
    ended = scene.harness.act(value=1)
    ended.result(SOON_S)
    with pytest.raises(Refused, match="is completed, so it cannot be rerouted"):
        reroute(scene, ended)
    dead = scene.harness.act("fail", job_type="locator_act", queue="exec", code="hopeless")
    scene.harness.await_state(dead, State.DEAD_LETTERED)
    with pytest.raises(Refused, match="taskyard dlq replay LETTER --queue QUEUE"):
        reroute(scene, dead)


def test_a_token_that_is_bound_to_the_old_queue_may_not_move_a_job_out_of_it(
    scene: Scene,
) -> None:
    job = scene.harness.act(job_type="locator_act")
    bound = replace(OPS, queues=frozenset({"locator"}))
    control = Control(scene.database, scene.harness.yard.records, bound)
    with pytest.raises(NotPermitted, match="plan"):
        control.reroute(job.job_id, "plan", reason=WHY)
    assert job.state() is State.ACCEPTED
