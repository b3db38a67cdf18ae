"""What `taskyard explain` says while a server is down, after deaths, and of lost messages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.explaining import Asker
from support.held_shop import HeldShop
from support.mirror import mirroring
from support.operated import OPS, WHY
from support.shell import Shell
from support.waiting import eventually
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.control import Control
from taskyard.control.explain import CauseKind as K
from taskyard.errors import PublishFailed
from taskyard.gate import Gate
from taskyard.jobs.states import State
from taskyard.records import GONE_S
from taskyard.settings import load

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True
NOWHERE = "redis://:hunter2@127.0.0.1:1/0"
NO_BROKER = "amqp://guest:hunter2@127.0.0.1:1//"
NO_POSTGRES = "postgresql://me:hunter2@127.0.0.1:1/none"


@pytest.fixture(params=["redis", "rabbitmq"])
def harness(request: pytest.FixtureRequest, servers: Servers) -> Iterator[ServerHarness]:
    """No worker, no relay, no mirror."""
    rabbit = request.param == "rabbitmq"
    at = servers.rabbitmq_url() if rabbit else servers.valkey_url()
    opened = ServerHarness(fresh_settings(servers.valkey_url(), broker_url=at))
    yield opened
    opened.close()


@pytest.fixture
def asker(harness: ServerHarness, database_url: str, tmp_path: Any) -> Asker:
    return Asker(harness.settings, database_url, tmp_path)


def on_rabbitmq(harness: ServerHarness) -> bool:
    return harness.settings.need_broker_url().startswith("amqp")


# -- each server down alone ------------------------------------------------------------------------


def test_each_server_that_is_down_leaves_its_own_part_out_and_no_other(
    harness: ServerHarness, asker: Asker, database_url: str
) -> None:
    job = harness.act().job_id
    queued = K.QUEUED_AT_RABBITMQ if on_rabbitmq(harness) else K.QUEUED
    with mirroring(harness.settings, database_url):
        eventually(lambda: asker.kinds(job) == [K.NO_CONSUMER, queued], "mirrored")
        mirrored(asker, job)

    without_postgres = asker.explain(job, TASKYARD_DATABASE_URL=NO_POSTGRES)
    kinds = [cause["kind"] for cause in without_postgres["causes"]]
    assert kinds == [K.NO_CONSUMER, queued, K.POSTGRES_SILENT]
    assert (without_postgres["code"], without_postgres["state"]) == (0, "accepted")
    assert list(without_postgres["unknown"]) == ["postgres"]

    down = NO_BROKER if on_rabbitmq(harness) else NOWHERE
    without_broker = asker.explain(job, TASKYARD_BROKER_URL=down)
    assert [cause["kind"] for cause in without_broker["causes"]] == [K.BROKER_SILENT]
    assert (without_broker["code"], without_broker["state"]) == (0, "accepted")
    assert list(without_broker["unknown"]) == ["broker"]

    without_records = asker.explain(job, TASKYARD_REDIS_URL=NOWHERE)
    kinds = [cause["kind"] for cause in without_records["causes"]]
    assert kinds == [K.RECORDS_SILENT, K.LEDGER_ONLY]
    assert (without_records["code"], without_records["state"]) == (3, "unknown")
    assert list(without_records["unknown"]) == ["records"]
    for answer in (without_postgres, without_broker, without_records):
        assert "hunter2" not in json.dumps(answer)


def mirrored(asker: Asker, job: str) -> None:
    eventually(lambda: asker.shell.run("jobs", "show", job, "--json").document["history"], "a row")


def test_with_every_server_down_it_says_so_three_times(
    harness: ServerHarness, asker: Asker
) -> None:
    down = {"TASKYARD_DATABASE_URL": NO_POSTGRES, "TASKYARD_REDIS_URL": NOWHERE}
    broker = NO_BROKER if on_rabbitmq(harness) else NOWHERE
    answer = asker.explain(str(uuid.uuid4()), **down, TASKYARD_BROKER_URL=broker)
    kinds = [cause["kind"] for cause in answer["causes"]]
    assert kinds == [K.RECORDS_SILENT, K.POSTGRES_SILENT]
    assert answer["code"] == 3


def test_an_unknown_id_is_not_called_unknown_while_a_server_is_silent(
    harness: ServerHarness, asker: Asker
) -> None:
    answer = asker.explain(str(uuid.uuid4()), TASKYARD_DATABASE_URL=NO_POSTGRES)
    assert [cause["kind"] for cause in answer["causes"]] == [K.POSTGRES_SILENT]
    assert answer["code"] == 3


# -- messages --------------------------------------------------------------------------------------


def test_what_the_broker_never_confirmed_is_published_by_the_command(
    harness: ServerHarness, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_rabbitmq(harness):
        pytest.skip("in one Redis record and message are written together")

    def fail(messages: Sequence[object]) -> list[PublishFailed]:
        return [PublishFailed("the broker does not answer") for _ in messages]

    with monkeypatch.context() as patch:
        patch.setattr(harness.yard.publisher, "publish_many", fail)
        with pytest.raises(PublishFailed) as failed:
            harness.act(idempotency_key="k")
    (key,) = harness.redis.scan_iter(f"{harness.settings.namespace}:job:*")
    job = key.decode().rpartition(":")[2]
    harness.redis.hincrby(key, "admitted", -120_000_000)
    first = asker.explain(job)["causes"][0]

    assert failed.value is not None
    assert first["kind"] == K.UNPUBLISHED
    asker.run(first)
    assert K.UNPUBLISHED not in asker.kinds(job)


def test_a_lost_message_is_missing_after_a_minute_and_on_its_way_before(
    harness: ServerHarness, asker: Asker
) -> None:
    if on_rabbitmq(harness):
        pytest.skip("RabbitMQ cannot be searched for a message")
    job = harness.act().job_id
    harness.broker.delete(list_key(harness.settings, "exec"), *harness.queue_keys)
    assert K.MESSAGE_MOVES in asker.kinds(job)
    harness.redis.hincrby(harness.yard.records.keys.record(job), "admitted", -120_000_000)
    first = asker.explain(job)["causes"][0]

    assert first["kind"] == K.MESSAGE_MISSING
    asker.shell.run(*first["commands"][0].split()[1:])  # there is no copy, so nothing is repaired
    assert asker.explain(job)["causes"][0]["kind"] == K.MESSAGE_MISSING


def test_a_stale_message_is_named_beside_the_one_that_counts(
    harness: ServerHarness, asker: Asker
) -> None:
    if on_rabbitmq(harness):
        pytest.skip("RabbitMQ cannot be searched for a message")
    job = harness.act().job_id
    key = next(key for key in harness.queue_keys if harness.broker.llen(key))
    (raw,) = harness.broker.lrange(key, 0, -1)
    document = json.loads(raw)
    document["headers"]["taskyard"]["epoch"] -= 1
    harness.broker.rpush(key, json.dumps(document))
    answer = asker.explain(job)
    kinds = [cause["kind"] for cause in answer["causes"]]

    assert kinds == [K.NO_CONSUMER, K.QUEUED, K.STALE_MESSAGE]
    assert answer["causes"][1]["facts"]["ahead"] == 1


def test_further_back_than_is_searched_the_number_is_a_lower_limit(
    harness: ServerHarness, asker: Asker
) -> None:
    if on_rabbitmq(harness):
        pytest.skip("RabbitMQ cannot be searched for a message")
    job = harness.act().job_id
    key = next(key for key in harness.queue_keys if harness.broker.llen(key))
    for _ in range(21):
        harness.broker.rpush(key, *[b'{"headers": {"id": "other"}}'] * 1000)
    answer = asker.explain(job)
    behind = next(one for one in answer["causes"] if one["kind"] == K.QUEUED_BEHIND_AT_LEAST)

    assert behind["facts"]["waiting"] == 21_001
    assert 19_000 <= behind["facts"]["ahead"] <= 21_000


# -- operators -------------------------------------------------------------------------------------


def test_an_open_request_names_its_operator_and_the_relay_carries_it_out(
    harness: ServerHarness, asker: Asker, database: Engine
) -> None:
    job = harness.act()
    control = Control(database, harness.yard.records, OPS, wait_s=0)
    control.cancel(job.job_id, reason=WHY)
    request = asker.cause(job.job_id, K.REQUEST_OPEN)

    assert "cancel was requested 20" in request["text"]
    assert f"by ops@example.com ({WHY}) and is not carried out yet: no relay" in request["text"]
    assert asker.shell.run(*request["see"].split()[1:]).code == 0
    with asker.running(request):
        harness.await_state(job, State.CANCELLED)


def test_a_closed_gate_is_named_for_what_waits_for_the_relay_and_is_opened(
    harness: ServerHarness, asker: Asker, empty_database: Engine
) -> None:
    job, database = harness.act(), empty_database
    gate = Gate(harness.settings.namespace, harness.redis)
    gate.beat(database)
    harness.redis.delete(f"{harness.settings.namespace}:gate")
    Control(database, harness.yard.records, OPS, wait_s=0).cancel(job.job_id, reason=WHY)
    closed = asker.cause(job.job_id, K.GATE_CLOSED)

    assert asker.explain(job.job_id)["causes"][0]["kind"] == K.GATE_CLOSED
    assert "Redis has no mark and Postgres has one" in closed["text"]
    asker.run(closed, 1)
    assert K.GATE_CLOSED not in asker.kinds(job.job_id)


# -- dead workers ----------------------------------------------------------------------------------


@pytest.fixture
def shop(shell: Shell) -> Iterator[HeldShop]:
    made = HeldShop(load(shell.variables, shell.folder).settings)
    yield made
    made.close()


def first_of(shell: Shell, job: str) -> dict[str, Any]:
    causes = shell.run("explain", job, "--json").document["causes"]
    return dict(causes[0])


def test_a_dead_workers_job_says_when_its_message_comes_back(shell: Shell, shop: HeldShop) -> None:
    valid, expired = shop.begin("shop@dead", expired_s=-600), shop.begin("shop@dead")
    for at, job in enumerate((valid, expired)):
        shop.hold(job, tag=f"host.1.abc:{at}")
    shop.owner()
    shop.owner("host.2.def", silent_s=-600)
    shop.member("shop@dead", silent_s=GONE_S + 60, own=True, queues=(shop.queue,))

    first = first_of(shell, valid)
    assert first["kind"] == K.WORKER_DEAD
    assert "its worker shop@dead is dead, and its lease is valid until 20" in first["text"]
    assert "held by process host.1, which is dead; it comes back at about 20" in first["text"]
    assert first["commands"] == [f"celery -A APP worker -Q {shop.queue}"]
    assert first_of(shell, expired)["kind"] == K.LEASE_EXPIRED
    assert "which is dead, expired 20" in first_of(shell, expired)["text"]


def test_what_a_dead_worker_had_not_begun_is_with_it(shell: Shell, shop: HeldShop) -> None:
    job = shop.admit()
    shop.hold(job)
    shop.owner()
    first = first_of(shell, job)
    assert first["kind"] == K.HELD_BY_DEAD
    assert (
        "held by process host.1, which is dead; no running worker would give it back"
        in (first["text"])
    )


def test_what_a_living_worker_has_taken_and_not_begun_needs_no_command(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.admit()
    shop.hold(job)
    shop.owner(silent_s=-600)
    first = first_of(shell, job)
    assert first["kind"] == K.PREFETCHED
    assert first["text"].startswith("worker process host.1 has taken it from queue ")
    assert first["commands"] == []


def test_a_task_of_an_app_that_nobody_has_begun_is_found_in_its_queue(
    shell: Shell, shop: HeldShop
) -> None:
    job = str(uuid.uuid4())
    shop.queued(job)
    causes = shell.run("explain", job, "--json").document["causes"]
    kinds = [cause["kind"] for cause in causes]
    assert K.QUEUED in kinds
    assert kinds[-1] == K.NO_RECORD_YET


def test_at_a_terminal_each_cause_is_a_sentence_and_its_command_one_line(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.admit()
    shop.hold(job)
    shop.owner()
    out = shell.run("explain", job).out
    assert out.startswith(f"job    {job}\n")
    assert "\n1. Its message is held by process host.1, which is dead; " in out
    assert f"\n   run  celery -A APP worker -Q {shop.queue}\n" in out
