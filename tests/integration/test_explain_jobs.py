"""Why a job is where it is: each cause made real, and its command moves the job.

Workers, relay and mirror are real, and both brokers.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.explaining import Asker
from support.operated import OPS, WHY
from support.verb_stages import Native, staged
from support.waiting import eventually
from support.yard import list_key
from taskyard.access import Identity, Role
from taskyard.control import Control
from taskyard.control.explain import CauseKind as K
from taskyard.control.explain import Explanation
from taskyard.errors import NotFound
from taskyard.jobs.states import State

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True
BROKERS = ("redis", "rabbitmq")


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stage(
    broker: str,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Native]:
    folder = tmp_path_factory.mktemp("stage")
    with staged(broker, servers, database, database_url, folder) as made:
        assert isinstance(made, Native)
        yield made


@pytest.fixture
def asker(stage: Native, database_url: str) -> Asker:
    return Asker(stage.scene.settings, database_url, stage.scene.worker.folder)


def ended(stage: Native, job_id: str, state: State) -> None:
    eventually(lambda: stage.state(job_id) is state, str(state), why=stage.logs)


def test_without_a_worker_on_its_queue_the_command_starts_one_that_runs_it(
    stage: Native, asker: Asker, broker: str
) -> None:
    job = stage.make("no worker")
    eventually(  # a worker names its queues with its second heartbeat
        lambda: "plan" in asker.explain(job.job_id)["causes"][0]["text"], "what it reads"
    )
    answer = asker.explain(job.job_id)
    first = answer["causes"][0]

    assert (answer["code"], answer["state"], answer["queue"]) == (0, "accepted", "locator")
    assert first["kind"] == K.NO_CONSUMER
    assert "no worker reads queue locator. Those that run: worker@" in first["text"]
    assert " reads exec, plan" in first["text"] or " reads plan, exec" in first["text"]
    assert first["commands"] == ["taskyard worker --pool locator"]
    assert K.CONSUMERS_BUSY not in [cause["kind"] for cause in answer["causes"]]
    pointer = f"\n\nWhy it is where it is: taskyard explain {job.job_id}\n"
    assert asker.shell.run("jobs", "show", job.job_id).out.endswith(pointer)
    if broker == "redis":
        assert asker.cause(job.job_id, K.QUEUED)["text"].startswith("it is the next in queue")
    else:
        assert "RabbitMQ does not say" in asker.cause(job.job_id, K.QUEUED_AT_RABBITMQ)["text"]
    with asker.running(first):
        ended(stage, job.job_id, State.COMPLETED)
    assert asker.kinds(job.job_id) == [K.COMPLETED]
    assert "taskyard explain" not in asker.shell.run("jobs", "show", job.job_id).out


def test_behind_others_it_says_how_many_and_that_the_workers_are_busy(
    stage: Native, asker: Asker, broker: str
) -> None:
    release = stage.fill(24)
    job, urgent = stage.simple(), stage.simple(priority=5)
    answer = asker.explain(job)
    kinds = [cause["kind"] for cause in answer["causes"]]

    try:
        if broker == "rabbitmq":
            assert kinds == [K.QUEUED_AT_RABBITMQ, K.CONSUMERS_BUSY]
            waiting = int(answer["causes"][0]["facts"]["waiting"])
            assert waiting >= 15
        else:
            ahead = answer["causes"][0]["facts"]["ahead"]
            assert kinds == [K.QUEUED, K.CONSUMERS_BUSY]
            assert ahead == served_before(stage, job)
            assert f"{ahead} messages are before it in queue exec" in answer["causes"][0]["text"]
            assert asker.cause(urgent, K.QUEUED)["facts"]["ahead"] == 0
            assert "1 worker reads queue exec, and workers hold" in answer["causes"][1]["text"]
    finally:
        release()
    ended(stage, job, State.COMPLETED)


def served_before(stage: Native, job: str) -> int:
    """How many messages of `exec` a worker would take before the job's, counted by hand."""
    found: list[bytes] = []
    for step in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
        found += reversed(
            stage.harness.broker.lrange(list_key(stage.scene.settings, "exec") + step, 0, -1)
        )
    return [json.loads(raw)["headers"]["id"] for raw in found].index(job)


def test_a_running_job_says_who_has_it_and_each_command_goes_one_step_further(
    stage: Native, asker: Asker
) -> None:
    job = stage.make("running")
    first = asker.await_first(job.job_id, K.RUNNING)

    assert "attempt 1 has run since 20" in first["text"]
    assert "worker worker@" in first["text"]
    assert first["facts"]["worker_lives"] is True
    asker.run(first, 0)
    requested = asker.await_first(job.job_id, K.CANCEL_REQUESTED)
    assert "was asked to stop" in requested["text"]
    assert WHY in requested["text"]
    asker.run(requested, 0)
    ended(stage, job.job_id, State.ABORTED)
    # The relay closes the request after the job has ended.
    eventually(lambda: asker.kinds(job.job_id) == [K.ABORTED], "the request is closed")
    (aborted,) = asker.explain(job.job_id)["causes"]
    assert " by local:" in aborted["text"]
    assert WHY in aborted["text"]
    job.release()


def test_a_job_with_a_countdown_says_when_it_is_due(
    stage: Native, asker: Asker, broker: str
) -> None:
    job = stage.simple(countdown=120)
    first = asker.explain(job)["causes"][0]

    if broker == "redis":
        assert first["kind"] == K.SCHEDULED
        assert "UTC (in 1m)" in first["text"] or "UTC (in 2m)" in first["text"]
        asker.run(first)
        ended(stage, job, State.CANCELLED)
    else:
        assert first["kind"] == K.QUEUED_AT_RABBITMQ
        assert "nor whether the job waits for its time" in first["text"]
        stage.control.cancel(job, reason=WHY)


def test_a_retry_says_when_and_after_which_error(stage: Native, asker: Asker) -> None:
    job = stage.make("retrying")
    first = asker.explain(job.job_id)["causes"][0]

    assert first["kind"] == K.RETRY_AT
    assert first["text"].startswith("attempt 1 failed with ")
    assert first["facts"]["due_us"] > 0
    asker.run(first)
    ended(stage, job.job_id, State.CANCELLED)
    (cancelled,) = asker.explain(job.job_id)["causes"]
    assert cancelled["kind"] == K.CANCELLED
    assert WHY in cancelled["text"]


def test_a_dead_letter_names_itself_and_its_command_replays_it(stage: Native, asker: Asker) -> None:
    job = stage.make("dead-lettered")
    first = asker.await_first(job.job_id, K.LETTER)

    assert "non_retryable" in first["text"]
    assert "hopeless" in first["text"]
    assert "is pending and can be replayed" in first["text"]
    asker.run(first)
    eventually(
        lambda: stage.fields(job.job_id).get("generation") == "1", "replayed", why=stage.logs
    )


def test_a_moved_jobs_message_leaves_a_queue_that_no_worker_reads_by_the_command(
    stage: Native, asker: Asker, broker: str
) -> None:
    if broker == "redis":
        pytest.skip("at Redis the relay moves the message itself")
    job = stage.make("no worker").job_id
    eventually(lambda: asker.kinds(job)[0] == K.NO_CONSUMER, "no worker reads it")
    for queue in ("ops", "plan"):
        stage.control.reroute(job, queue, reason=WHY)
    first = asker.await_first(job, K.OLD_QUEUE_UNREAD)

    assert "it was moved to queue plan by ops@example.com" in first["text"]
    assert "its message is still in queue locator, which no worker reads" in first["text"]
    assert first["commands"] == [
        "taskyard queues forward locator",
        "taskyard worker --pool locator",
    ]
    assert asker.run(first).out == "1 forwarded, 0 returned to queue locator\n"
    ended(stage, job, State.COMPLETED)


def test_a_moved_jobs_message_that_a_worker_will_take_needs_no_command(
    stage: Native, asker: Asker, broker: str
) -> None:
    if broker == "redis":
        pytest.skip("at Redis the relay moves the message itself")
    release = stage.fill(24)
    job = stage.simple()
    try:
        stage.control.reroute(job, "plan", reason=WHY)
        first = asker.await_first(job, K.REROUTED)
        assert "its message is still in queue exec, and the worker that takes it" in first["text"]
    finally:
        release()
    ended(stage, job, State.COMPLETED)


def test_a_message_without_a_record_is_found_where_it_waits(
    stage: Native, asker: Asker, broker: str
) -> None:
    job = stage.make("no record")
    answer = asker.explain(job.job_id)
    try:
        kinds = [cause["kind"] for cause in answer["causes"]]
        if broker == "redis":
            assert kinds[0] == K.QUEUED
            assert answer["code"] == 0
        else:
            assert kinds == [K.UNKNOWN_ID]
            assert answer["code"] == 4
            assert "RabbitMQ" in answer["causes"][0]["text"]
    finally:
        job.release()
    ended(stage, job.job_id, State.COMPLETED)


def test_an_id_that_nothing_knows_is_said_and_has_its_exit_code(
    stage: Native, asker: Asker
) -> None:
    ran = asker.shell.run("explain", str(uuid.uuid4()))
    assert ran.code == 4
    assert "No job has this id" in ran.out


def test_programs_ask_control_and_a_bound_identity_hears_of_its_own_queues_alone(
    stage: Native, database: Engine
) -> None:
    job = stage.make("no worker")

    def unread() -> Explanation | None:
        found = stage.control.explain(job.job_id)
        return found if found.causes[0].kind is K.NO_CONSUMER else None

    # The worker of an earlier test, which was killed, counts as alive for some seconds.
    answer = eventually(unread, "the queue has no consumer")
    assert answer.state == "accepted"

    bound = Identity("eve@example.com", via="token", role=Role.VIEWER, queues=frozenset({"plan"}))
    records = stage.harness.yard.records
    with pytest.raises(NotFound):
        Control(database, records, bound).explain(job.job_id)
    within = Identity("eve@example.com", via="t", role=Role.VIEWER, queues=frozenset({"locator"}))
    seen = Control(database, records, within).explain(job.job_id)
    assert "No worker that you may see runs" in seen.causes[0].text
    assert Control(database, records, OPS).explain(job.job_id).causes[0].kind is K.NO_CONSUMER
    stage.control.cancel(job.job_id, reason=WHY)
