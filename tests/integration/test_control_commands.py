"""Celery's control commands to three workers: verbs on jobs, and one audit pair for a broadcast."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.app.control import flatten_reply
from sqlalchemy import Engine, select

from servers import Servers
from support.listening import await_listening
from support.mirror import mirroring
from support.signing import Keeper
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Action
from taskyard.access.broadcast_calls import UNVERIFIED, call_of_command
from taskyard.access.credential import sign
from taskyard.audit import list_unverified
from taskyard.client import JobHandle
from taskyard.database.tables import AUDIT, LETTERS
from taskyard.database.tables import UNVERIFIED as DENIALS
from taskyard.errors import JobFailed
from taskyard.jobs.states import State
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

NAMES = ("first", "second", "third")


class Scene:
    """Three workers of one process each on one queue, and a mirror."""

    def __init__(self, settings: Settings, keeper: Keeper, database: Engine) -> None:
        self.settings, self.keeper, self.database = settings, keeper, database
        self.workers: list[Worker] = []
        self.harness = ServerHarness(settings)

    def send(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The replies by worker. On Redis several at once cost the whole time to wait."""
        app = self.harness.yard.app
        with app.connection_for_write() as connection:
            replies = app.control.broadcast(
                command,
                arguments=arguments,
                reply=True,
                limit=len(NAMES),
                timeout=3,
                connection=connection,
            )
        return dict(flatten_reply(replies))

    def send_raw(self, body: object, **options: Any) -> None:
        """Send a body that no Celery client sends, to all workers."""
        mailbox = self.harness.yard.app.control.mailbox
        with self.harness.yard.app.connection_for_write() as connection:
            bound = mailbox(connection)
            with bound.producer_or_acquire(channel=connection.default_channel) as producer:
                exchange = bound.exchange
                producer.publish(body, exchange=exchange.name, declare=[exchange], **options)

    def signed(
        self, command: str, verb: Action, queues: frozenset[str] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The arguments with a credential for them, of the operator within `queues`."""
        call = call_of_command(self.settings.namespace, verb, command, arguments)
        credential = sign(
            self.keeper.key,
            replace(self.keeper.identity, queues=queues),
            call,
            now=datetime.now(UTC),
            life=timedelta(minutes=10),
        )
        return {**arguments, CREDENTIAL: credential}

    def rows(self) -> list[dict[str, Any]]:
        query = select(AUDIT).order_by(AUDIT.c.id)
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def pair(self, before: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two rows of the one command since then."""
        eventually(
            lambda: len(self.rows()) >= before + 2 and not self.harness.events(),
            "a request and an outcome",
            why=lambda: f"{self.rows()[before:]} {self.workers[0].log[-3000:]}",
        )
        request, outcome = self.rows()[before:]
        assert (request["outcome"], request["request_id"]) == ("requested", outcome["request_id"])
        return request, outcome

    def letters(self) -> list[str]:
        """The dead letters that the mirror has stored."""
        with self.database.connect() as connection:
            return [str(found) for found in connection.scalars(select(LETTERS.c.id))]

    def running(self, do: str = "return", **options: Any) -> JobHandle:
        job = self.harness.act(do, **options)
        self.harness.await_state(job, State.RUNNING)
        eventually(lambda: self.harness.runs(job) == 1, "its handler")
        return job


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url, folder = servers.valkey_url(), tmp_path_factory.mktemp("commands")
    keeper = Keeper(folder / "keys")
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        public_keys=keeper.ring,
        lease_s=3,
    )
    made = Scene(settings, keeper, database)
    with ExitStack() as running:
        for name in NAMES:
            worker = Worker(
                settings,
                folder / name,
                queues=("exec",),
                modules=(HANDLERS,),
                name=name,
                concurrency=1,
                options=("--prefetch-multiplier", "1"),
            )
            made.workers.append(running.enter_context(worker.launch()))
        for worker in made.workers:
            worker.await_log(" ready.")
        await_listening(made.harness.yard.app, NAMES, lambda: made.workers[0].log)
        running.enter_context(mirroring(settings, database_url))
        yield made
        made.harness.close()


@pytest.fixture
def busy(scene: Scene) -> Iterator[str]:
    """All three processes work until the gate that is yielded opens."""
    gate = uuid.uuid4().hex
    jobs = [scene.running(gate=gate) for _ in NAMES]
    yield gate
    scene.harness.open_gate(gate)
    for job in jobs:
        scene.harness.await_end(job)


def test_a_revocation_of_waiting_jobs_cancels_them_and_is_one_audit_pair(
    scene: Scene, busy: str
) -> None:
    before, jobs = len(scene.rows()), [scene.harness.act() for _ in range(3)]
    ids = [job.job_id for job in jobs]
    replies = scene.send("revoke", task_id=ids)
    assert len(replies) == len(NAMES)
    assert all("ok" in reply for reply in replies.values()), replies
    request, outcome = scene.pair(before)
    assert (request["action_type"], request["operator_identity"]) == ("cancel_request", UNVERIFIED)
    assert request["detail"]["arguments"]["task_id"] == ids
    assert (outcome["outcome"], outcome["identity_via"]) == ("applied", "broadcast")
    assert outcome["detail"]["jobs"] == dict.fromkeys(ids, "cancelled")
    scene.harness.open_gate(busy)
    for job in jobs:
        eventually(lambda job=job: "kept" not in job.record().fields, "its message was seen")
        assert (job.state(), scene.harness.runs(job)) == (State.CANCELLED, 0)


def test_a_revocation_of_one_job_of_a_client_that_waits_for_no_reply(
    scene: Scene, busy: str
) -> None:
    before, job = len(scene.rows()), scene.harness.act()
    scene.harness.yard.app.control.revoke(job.job_id)
    request, outcome = scene.pair(before)
    assert (request["target_request_id"], outcome["outcome"]) == (job.job_id, "applied")
    with pytest.raises(JobFailed, match="is cancelled"):
        job.result(SOON_S)


def test_a_revocation_asks_a_running_job_to_stop(scene: Scene) -> None:
    before, job = len(scene.rows()), scene.running("until cancelled")
    replies = scene.send("revoke", task_id=job.job_id)
    assert all("ok" in reply for reply in replies.values()), replies
    assert scene.harness.await_end(job) is State.CANCELLED
    _, outcome = scene.pair(before)
    assert outcome["outcome"] == "applied"
    assert set(outcome["detail"]["jobs"].values()) <= {"asked_to_stop", "cancelled"}


@pytest.mark.parametrize("command", ["revoke", "terminate"])
def test_a_running_job_that_is_terminated_is_aborted(scene: Scene, command: str) -> None:
    before, gate = len(scene.rows()), uuid.uuid4().hex
    job = scene.running(gate=gate)
    options = {"terminate": True} if command == "revoke" else {}
    scene.send(command, task_id=job.job_id, signal="SIGTERM", **options)
    assert job.state() is State.ABORTED
    request, outcome = scene.pair(before)
    assert (request["action_type"], outcome["outcome"]) == ("abort_request", "applied")
    # Its attempt is stopped: the gate stays closed.
    stops = f"job {job.job_id}: this worker stops its attempt"
    eventually(lambda: any(stops in worker.log for worker in scene.workers), "its attempt's end")
    assert (job.state(), scene.harness.runs(job)) == (State.ABORTED, 1)


def test_jobs_with_a_revoked_stamp_end_when_a_worker_sees_them(scene: Scene, busy: str) -> None:
    before, stamp = len(scene.rows()), uuid.uuid4().hex
    app = scene.harness.yard.app
    queue = scene.settings.broker_name("exec")
    stamps = {"stamped_headers": ["wave"], "stamps": {"wave": [stamp]}}
    early = app.send_task("raw_act", args=[1], queue=queue, headers=stamps)
    scene.send("revoke_by_stamped_headers", headers={"wave": [stamp]})
    late = app.send_task("raw_act", args=[2], queue=queue, headers=stamps)
    other = app.send_task("raw_act", args=[3], queue=queue)
    request, outcome = scene.pair(before)
    assert request["detail"]["arguments"] == {"headers": {"wave": [stamp]}}
    assert outcome["outcome"] == "applied"
    scene.harness.open_gate(busy)
    assert other.get(timeout=SOON_S) == 3
    for result in (early, late):
        scene.harness.await_state(scene.harness.yard.job(result.id), State.CANCELLED)


def test_a_dead_letter_is_left_alone_and_its_replay_runs(scene: Scene) -> None:
    before = len(scene.rows())
    job = scene.harness.act("fail", code="hopeless")
    scene.harness.await_state(job, State.DEAD_LETTERED)
    replies = scene.send("revoke", task_id=job.job_id)
    assert all("taskyard jobs cancel" in reply["error"] for reply in replies.values())
    _, outcome = scene.pair(before)
    assert outcome["outcome"].startswith("refused: job ")
    assert outcome["detail"]["jobs"] == {job.job_id: "refused: dead_lettered"}
    record = job.record()
    replayed = scene.harness.yard.records.replay(
        job_id=job.job_id,
        epoch=record.epoch,
        generation=record.generation,
        request_id=str(uuid.uuid4()),
        job_type="exec_act",
        queue="exec",
        priority=3,
    )
    assert replayed.generation == record.generation + 1


def test_what_a_starting_worker_is_told_of_revoked_ids_stops_no_job(scene: Scene) -> None:
    job_id = str(uuid.uuid4())
    scene.send("hello", from_node="stranger@host", revoked={job_id: 0.0})
    remembered = scene.send("revoked")
    assert all(job_id in ids for ids in remembered.values())
    queue = scene.settings.broker_name("exec")
    result = scene.harness.yard.app.send_task("raw_act", args=[7], queue=queue, task_id=job_id)
    assert result.get(timeout=SOON_S) == 7


def test_a_command_that_changes_a_worker_is_one_audit_pair(scene: Scene) -> None:
    before = len(scene.rows())
    replies = scene.send("rate_limit", task_name="exec_act", rate_limit="1000/s")
    assert [reply["ok"] for reply in replies.values()] == ["new rate limit set successfully"] * 3
    request, outcome = scene.pair(before)
    assert (request["action_type"], outcome["outcome"]) == ("flower_set_rate_limit", "applied")
    scene.send("autoscale", max=2, min=1)
    _, outcome = scene.pair(before + 2)
    assert outcome["outcome"] == "refused: Autoscale not enabled"


def test_a_command_of_a_wrong_form_is_refused_with_an_audit_pair(scene: Scene) -> None:
    before = len(scene.rows())
    replies = scene.send("revoke", task_id=[7])
    assert all("a job's id is a text" in reply["error"] for reply in replies.values())
    _, outcome = scene.pair(before)
    assert outcome["outcome"].startswith("refused: a job's id is a text")


def test_messages_that_are_no_commands_are_dropped_in_one_line(scene: Scene) -> None:
    marks = [len(worker.log) for worker in scene.workers]
    before = len(scene.letters())
    for body in ([], "x", {"method": 7}, {"method": "ping", "arguments": [1]}, {"method": "none"}):
        scene.send_raw(body, serializer="json")
    scene.send_raw({"method": "ping"}, serializer="json", headers={"clock": "soon"})
    scene.send_raw(b"{", content_type="application/json", content_encoding="utf-8")
    scene.send_raw(b"x", content_type="application/x-python-serialize", content_encoding="binary")
    packed = {"compression": "application/x-gzip"}
    scene.send_raw(b"x", content_type="application/json", content_encoding="utf-8", headers=packed)
    replies = scene.send("ping")
    assert len(replies) == len(NAMES)
    assert len(scene.letters()) == before
    for worker, mark in zip(scene.workers, marks, strict=True):
        log = worker.log[mark:]
        assert log.count("a control message is dropped") == 8, log
        assert "the control command none cannot be called" in log
        assert "Traceback" not in log
        assert "Control command error" not in log


def test_a_signed_revocation_is_that_of_its_signer_and_within_its_bounds(
    scene: Scene, busy: str
) -> None:
    before, job = len(scene.rows()), scene.harness.act()
    arguments = scene.signed("revoke", Action.CANCEL_REQUEST, task_id=job.job_id)
    replies = scene.send("revoke", **arguments)
    assert all("ok" in reply for reply in replies.values()), replies
    request, outcome = scene.pair(before)
    assert request["operator_identity"] == outcome["operator_identity"] == scene.keeper.subject
    assert (outcome["outcome"], job.state()) == ("applied", State.CANCELLED)
    secret = arguments[CREDENTIAL].split(".")[3]
    assert secret not in str((request, outcome))
    # A copy is the same call.
    scene.send("revoke", **arguments)
    eventually(lambda: not scene.harness.events(), "all of the stream in Postgres")
    assert len(scene.rows()) == before + 2


def test_a_credential_for_other_arguments_or_of_a_lower_role_is_denied(scene: Scene) -> None:
    with scene.database.begin() as connection:
        connection.execute(DENIALS.delete())
    job = scene.harness.act("until cancelled")
    scene.harness.await_state(job, State.RUNNING)
    arguments = scene.signed("revoke", Action.CANCEL_REQUEST, task_id="another")
    replies = scene.send("revoke", **{**arguments, "task_id": job.job_id})
    assert {reply["denied"] for reply in replies.values()} == {"wrong_arguments"}
    before = len(scene.rows())
    arguments = scene.signed(
        "time_limit", Action.FLOWER_SET_TIME_LIMIT, task_name="exec_act", hard=1
    )
    replies = scene.send("time_limit", **arguments)
    assert {reply["denied"] for reply in replies.values()} == {"not_permitted"}
    eventually(lambda: len(scene.rows()) == before + 1, "its row")
    assert scene.rows()[-1]["outcome"] == "denied"

    def counts() -> dict[str, int]:
        return {row["why"]: row["count"] for row in list_unverified(scene.database, None, 100)}

    eventually(lambda: counts() == {"wrong_arguments": 1}, "one denial", why=lambda: str(counts()))
    assert job.state() is State.RUNNING
    scene.send("revoke", task_id=job.job_id)
    scene.harness.await_end(job)


@pytest.mark.slow
def test_a_signer_bound_to_queues_binds_no_queue_to_the_messages_of_another(scene: Scene) -> None:
    own, plan = "own-" + uuid.uuid4().hex[:8], scene.settings.broker_name("plan")

    def ask(**arguments: Any) -> dict[str, Any]:
        verb, bound = Action.FLOWER_ADD_CONSUMER, frozenset({own})
        signed = scene.signed("add_consumer", verb, bound, **arguments)
        return scene.send("add_consumer", **signed)

    for more in ({"exchange": plan}, {"routing_key": plan}, {"bindings": [{"exchange": plan}]}):
        replies = ask(queue=own, **more)
        assert {reply["denied"] for reply in replies.values()} == {"not_permitted"}
    assert {reply["denied"] for reply in ask(queue=plan).values()} == {"not_permitted"}
    assert all("ok" in reply for reply in ask(queue=own, exchange=None).values())
    scene.send("cancel_consumer", queue=own)


def test_a_fleet_that_takes_signed_commands_alone_denies_the_others(
    database: Engine, servers: Servers, tmp_path: Path
) -> None:
    keeper = Keeper(tmp_path / "keys")
    settings = fresh_settings(
        servers.valkey_url(), public_keys=keeper.ring, control_commands="signed"
    )
    alone = Scene(settings, keeper, database)
    with Worker(settings, tmp_path, queues=("plan",), concurrency=1).start() as worker:
        await_listening(alone.harness.yard.app, [worker.name], lambda: worker.log)
        job = alone.harness.act()
        control = alone.harness.yard.app.control

        def ask(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
            [reply] = control.broadcast(command, arguments, reply=True, limit=1, timeout=10)
            return dict(next(iter(reply.values())))

        for command, arguments in (
            ("revoke", {"task_id": job.job_id}),
            ("shutdown", {}),
            ("pool_grow", {"n": 1}),
        ):
            assert ask(command, arguments)["denied"] == "unsigned"
        assert job.state() is State.ACCEPTED
        assert ask("ping", {}) == {"ok": "pong"}
        signed = alone.signed("revoke", Action.CANCEL_REQUEST, task_id=job.job_id)
        assert ask("revoke", signed) == {"ok": f"job {job.job_id} is cancelled"}
        worker.await_log("denied a broadcast of flower_shutdown_worker")
    alone.harness.close()
