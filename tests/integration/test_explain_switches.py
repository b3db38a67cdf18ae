"""Jobs that a switch holds: `taskyard explain` names it, and its command lifts the switch.

Operators turn the switches; workers obey them, on both brokers.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.explaining import Asker
from support.switched import ADMIN
from support.switched import WHY as OUTAGE
from support.verb_stages import Native, staged
from support.waiting import eventually
from taskyard.control import Control
from taskyard.control.explain import CauseKind as K
from taskyard.jobs.states import State
from taskyard.switches import Kind, RedisSwitches, SwitchField, SwitchScope

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
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
    with staged(broker, servers, database, database_url, tmp_path_factory.mktemp("stage")) as made:
        assert isinstance(made, Native)
        yield made


@pytest.fixture
def asker(stage: Native, database_url: str) -> Asker:
    return Asker(stage.scene.settings, database_url, stage.scene.worker.folder)


@pytest.fixture
def operator(stage: Native) -> Iterator[Control]:
    """One who turns switches; those that are still on at the end are turned off."""
    records, database = stage.harness.yard.records, stage.database
    switches = RedisSwitches(stage.harness.redis, stage.scene.settings.namespace)
    control = Control(database, records, ADMIN, switches=switches)
    yield control
    for field in switches.read().in_force():
        if field.kind is Kind.PAUSE:
            control.resume_queue(field.name, reason=OUTAGE)
        else:
            control.lift(field.on, reason=OUTAGE)


def ended(stage: Native, job_id: str, state: State = State.COMPLETED) -> None:
    eventually(lambda: stage.state(job_id) is state, str(state), why=stage.logs)


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (SwitchField.pause("locator"), K.PAUSED),
        (SwitchField.kill("all"), K.KILLED),
        (SwitchField.kill("queue:locator"), K.KILLED),
        (SwitchField.kill("type:locator_act"), K.KILLED),
    ],
    ids=str,
)
def test_a_switch_blocks_before_all_else_and_its_command_lifts_it(
    field: SwitchField, kind: K, stage: Native, asker: Asker, operator: Control
) -> None:
    job = stage.make("no worker").job_id
    if kind is K.PAUSED:
        operator.pause_queue(field.name, reason=OUTAGE)
    else:
        operator.kill(field.on, reason=OUTAGE, hold=True)
    first, *others = asker.explain(job)["causes"]

    assert first["kind"] == kind
    assert first["text"].endswith(f", without an end, by {ADMIN.subject}: {OUTAGE}")
    holds_queue = field.scope in (SwitchScope.ALL, SwitchScope.QUEUE)
    assert (K.NO_CONSUMER in [one["kind"] for one in others]) is not holds_queue
    asker.run(first)
    assert asker.kinds(job)[0] == K.NO_CONSUMER
    assert operator.cancel(job, reason=OUTAGE)


def test_of_two_switches_both_are_named_and_each_has_its_own_command(
    stage: Native, asker: Asker, operator: Control
) -> None:
    job = stage.make("no worker").job_id
    operator.pause_queue("locator", reason=OUTAGE)
    operator.kill("queue:locator", reason=OUTAGE, hold=True)
    paused, killed, *_ = asker.explain(job)["causes"]

    assert (paused["kind"], killed["kind"]) == (K.PAUSED, K.KILLED)
    asker.run(paused)
    assert asker.explain(job)["causes"][0]["kind"] == K.KILLED
    asker.run(killed)
    assert asker.kinds(job)[0] == K.NO_CONSUMER
    assert operator.cancel(job, reason=OUTAGE)


def test_a_switch_that_refuses_holds_only_what_came_after_it(
    stage: Native, asker: Asker, operator: Control
) -> None:
    job = stage.make("no worker").job_id
    operator.kill("type:locator_act", reason=OUTAGE)
    assert asker.kinds(job)[0] == K.NO_CONSUMER
    # As one that an app's `delay` admitted after the switch; `enqueue` would refuse it.
    key = stage.harness.yard.records.keys.record(job)
    stage.harness.redis.hincrby(key, "admitted", 3_600_000_000)
    first = asker.explain(job)["causes"][0]

    assert first["kind"] == K.HELD_AS_NEW
    asker.run(first)
    assert asker.kinds(job)[0] == K.NO_CONSUMER
    assert operator.cancel(job, reason=OUTAGE)


def test_what_a_worker_has_put_aside_for_a_switch_is_parked_and_what_is_not_due_is_not(
    stage: Native, asker: Asker, operator: Control, broker: str
) -> None:
    due, later = stage.simple(countdown=1), stage.simple(countdown=120)
    operator.kill("type:exec_act", reason=OUTAGE, hold=True)
    eventually(lambda: K.PARKED in asker.kinds(due), "parked", why=lambda: str(asker.explain(due)))
    killed, parked = asker.explain(due)["causes"]

    assert (killed["kind"], parked["kind"]) == (K.KILLED, K.PARKED)
    assert "until the kill switch on type:exec_act is off" in parked["text"]
    if broker == "redis":
        assert "its message waits apart from its queue until " in parked["text"]
        assert asker.kinds(later) == [K.KILLED, K.SCHEDULED]
    else:
        assert "in queue exec, or apart from it if a worker has taken it," in parked["text"]
    asker.run(killed)
    assert K.KILLED not in asker.kinds(due)
    if broker == "redis":
        ended(stage, due)
    else:  # it looks again after 30 s
        assert operator.cancel(due, reason=OUTAGE)
    assert operator.cancel(later, reason=OUTAGE)


def test_a_message_without_a_record_is_parked_for_the_switch_that_holds_it(
    stage: Native, asker: Asker, operator: Control, broker: str
) -> None:
    if broker == "rabbitmq":
        pytest.skip("RabbitMQ cannot be searched for a message")
    operator.kill("type:exec_act", reason=OUTAGE)
    job, queue = str(uuid.uuid4()), stage.scene.settings.broker_name("exec")
    app = stage.harness.yard.app
    with app.connection_for_write() as connection:
        app.send_task(
            "exec_act", args=[{"do": "return"}], task_id=job, queue=queue, connection=connection
        )
    eventually(lambda: K.PARKED in asker.kinds(job), "parked", why=lambda: str(asker.explain(job)))
    causes = asker.explain(job)["causes"]

    assert [cause["kind"] for cause in causes] == [K.HELD_AS_NEW, K.PARKED, K.NO_RECORD_YET]
    asker.run(causes[0])
    ended(stage, job)
