"""`taskyard queues list` has the queues that workers of installed apps announce."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import TRANSPORTS
from support.shell import Shell
from support.waiting import eventually
from support.worker import environment_of
from support.yard import fresh_settings
from taskyard.broker import connection, own_layout
from taskyard.broker.redis_keys import PLAIN, Layout
from taskyard.clock import SYSTEM_CLOCK, to_us
from taskyard.inspection.count_app_queues import look_at_apps
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_of_job import state_of
from taskyard.install import AnnouncedQueue, AnnouncedQueues
from taskyard.install.announced_queues import RABBIT, broker_mark
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

ODD = Layout(prefix="shop:", separator="~", steps=(0, 5))


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    with connect(settings.need_redis_url()) as client:
        yield Records(client, settings)
        client.delete(*client.keys(f"*{settings.namespace}*"), "nothing")


@pytest.fixture
def place(records: Records) -> AnnouncedQueue:
    namespace = records.settings.namespace
    return AnnouncedQueue(
        f"{namespace}.orders", broker_mark(records.client, namespace), ODD, records.now_us()
    )


def report(records: Records, *places: AnnouncedQueue) -> None:
    AnnouncedQueues(records.client, records.settings.namespace).report(places)


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_the_queues_of_an_app_are_listed_as_soon_as_its_worker_is_up(
    servers: Servers, tmp_path: Path, kind: str
) -> None:
    url = servers.valkey_url()
    broker = servers.rabbitmq_url() if kind == "rabbitmq" else url
    # kombu's Redis transport keeps no trace of who consumes a queue.
    unknown = kind == "redis by kombu"
    settings = fresh_settings(url, broker_url=broker)
    transport = False if unknown else None
    app = Legacy("protect", broker, url, settings, tmp_path, transport=transport)
    shell = Shell(tmp_path, environment_of(settings))
    try:
        app.worker()

        def rows() -> dict[str, dict[str, object]]:
            document = shell.run("queues", "list", "--json").document
            return {row["queue"]: row for row in document if row["app"]}

        eventually(lambda: f"{app.prefix}.work" in rows(), "the announcement", why=app.logs)
        found = rows()[f"{app.prefix}.work"]
        listed = shell.run("queues", "list")

        assert found["waiting"] == 0
        assert found["consumers"] == (None if unknown else 1)
        assert found["told_at"] is not None
        (line,) = [
            line for line in listed.out.splitlines() if line.startswith(f"{app.prefix}.work")
        ]
        assert line.endswith("the app's   an app")
        assert ("reported " in line) is unknown
        assert f"no worker consumes queue '{app.prefix}.work'" not in listed.err
        assert [row for row in rows() if row in settings.queues] == []
    finally:
        app.close()


def test_what_waits_is_counted_under_the_keys_that_the_workers_read(
    settings: Settings, records: Records, place: AnnouncedQueue
) -> None:
    report(records, place)
    records.client.lpush(ODD.key(place.queue, 0), "a", "b")
    records.client.lpush(ODD.key(place.queue, 5), "c")
    try:
        (state,) = look_at_apps(settings)
    finally:
        records.client.delete(*ODD.keys(place.queue))
    assert (state.queue, state.waiting, state.consumers, state.app) == (place.queue, 3, None, True)
    assert state.told_at is not None
    assert abs(SYSTEM_CLOCK.now() - state.told_at) < timedelta(minutes=1)


def test_workers_that_disagree_are_one_row_of_both_places(
    settings: Settings, records: Records, place: AnnouncedQueue
) -> None:
    report(records, place, replace(place, layout=PLAIN))
    records.client.lpush(PLAIN.key(place.queue, 0), "a")
    (state,) = look_at_apps(settings)
    assert state.waiting == 1


def test_what_lies_at_another_broker_is_unknown_and_not_empty(
    settings: Settings, records: Records, place: AnnouncedQueue
) -> None:
    report(records, replace(place, mark=uuid.uuid4().hex))
    (state,) = look_at_apps(settings)
    assert (state.waiting, state.consumers) == (None, None)


def test_a_queue_of_the_settings_is_not_listed_twice(
    settings: Settings, records: Records, place: AnnouncedQueue
) -> None:
    report(records, replace(place, queue=settings.broker_name("plan"), layout=own_layout(settings)))
    assert look_at_apps(settings) == []


def test_on_rabbitmq_a_queue_that_nobody_consumes_is_said_to_be(
    servers: Servers, settings: Settings, records: Records
) -> None:
    there = settings.model_copy(update={"broker_url": servers.rabbitmq_url()})
    name = f"{settings.namespace}.orders"
    report(records, AnnouncedQueue(name, RABBIT, PLAIN, to_us(SYSTEM_CLOCK.now())))
    with connection(there) as broker:
        broker.default_channel.queue_declare(queue=name, durable=True, auto_delete=False)
        try:
            (state,) = look_at_apps(there)
        finally:
            broker.default_channel.queue_delete(queue=name)
    assert (state.waiting, state.consumers, state.unserved) == (0, 0, True)


def test_a_waiting_job_of_an_app_is_not_said_to_be_without_a_worker(
    settings: Settings, records: Records, place: AnnouncedQueue
) -> None:
    """Its workers may hear nothing of what is asked here: another prefix, another namespace."""
    report(records, place)
    state = state_of(settings, place.queue)
    assert isinstance(state, QueueState)
    assert (state.consumers, state.app) == (None, True)


def test_records_that_do_not_answer_leave_the_apps_queues_unknown(
    settings: Settings, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, environment_of(settings))
    away = {"TASKYARD_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    ran = shell.run("queues", "list", "--json", **away)
    assert ran.code == 0
    assert [row["queue"] for row in ran.document] == list(settings.queues)
    assert ran.err.startswith("the queues of installed apps are unknown: Redis at redis://:[redac")


@pytest.mark.parametrize("verb", ["show", "wait"])
def test_an_unknown_job_may_be_a_task_that_waits_in_a_queue_of_an_app(
    records: Records,
    place: AnnouncedQueue,
    settings: Settings,
    tmp_path: Path,
    verb: str,
    database_url: str,
) -> None:
    report(records, place)
    shell = Shell(tmp_path, environment_of(settings) | {"TASKYARD_DATABASE_URL": database_url})

    ran = shell.run("jobs", verb, "0123456789")

    assert ran.code == 4
    assert "no record before a worker begins it" in ran.err
    assert "install(app, admit=True)" in ran.err
    assert f"a queue of the app ({place.queue}), which `taskyard queues list` counts" in ran.err


def test_an_id_as_celery_makes_it_may_wait_for_the_first_worker_of_an_app(
    settings: Settings, tmp_path: Path, database_url: str
) -> None:
    shell = Shell(tmp_path, environment_of(settings) | {"TASKYARD_DATABASE_URL": database_url})

    ran = shell.run("jobs", "show", str(uuid.uuid4()))

    assert ran.code == 4
    assert "install(app, admit=True)" in ran.err
    assert "(no worker of it has run yet)" in ran.err
