"""Operators reach the queues of installed apps, however their transport names them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from servers import Servers
from support.legacy import Legacy
from support.letters import make_message
from support.mirror import mirroring, stored_letters
from support.relay import relaying
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.access import Identity, Role
from taskyard.broker.redis_keys import PLAIN, Layout
from taskyard.control import replay
from taskyard.errors import PublishFailed, Refused
from taskyard.install import AnnouncedQueue, AnnouncedQueues, AnyQueuePublisher
from taskyard.install.announced_queues import broker_mark
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.wire import Stamp

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "The payment provider is back after its outage"
ODD: dict[str, Any] = {"global_keyprefix": "shop:", "priority_steps": [0, 2, 5], "sep": "~"}


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    made = Records(redis.Redis.from_url(settings.need_redis_url()), settings)
    yield made
    keys = list(made.client.scan_iter(f"*{settings.namespace}*", count=1000))
    made.client.delete(*keys, "nothing")
    made.client.close()


@pytest.fixture
def publisher(settings: Settings, records: Records) -> Iterator[AnyQueuePublisher]:
    made = AnyQueuePublisher(settings, records)
    yield made
    made.close()


def send(publisher: AnyQueuePublisher, queue: str, priority: int = 0) -> None:
    message = make_message("j", properties={"priority": priority})
    publisher.publish(message, queue=queue, priority=None, job_id="j", stamp=Stamp(1))


@pytest.mark.parametrize("options", [{}, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("priority", [0, 1, 2, 4, 5, 9])
def test_a_layout_names_the_list_that_kombu_names(
    settings: Settings, options: dict[str, Any], priority: int
) -> None:
    queue = f"{settings.namespace}.q"
    with (
        Connection(settings.need_redis_url(), transport_options=options) as connection,
        redis.Redis.from_url(settings.need_redis_url()) as client,
    ):
        connection.SimpleQueue(queue).put({}, priority=priority)
        layout = Layout.of(options)
        assert client.delete(layout.key(queue, layout.step(priority))) == 1


def test_a_replay_reaches_the_worker_of_an_app_with_odd_options(
    servers: Servers, database_url: str, tmp_path: Path
) -> None:
    url = servers.valkey_url()
    settings = fresh_settings(url)
    app = Legacy("protect", url, url, settings, tmp_path, options=ODD)
    try:
        app.worker()
        with (
            mirroring(settings, database_url) as database,
            relaying(settings, database),
            app.producer() as tasks,
        ):
            failed = tasks.fail.apply_async(("again",), priority=3)
            app.await_state(failed.id, "dead_lettered")
            (letter,) = _letters(database, failed.id)
            replay(database, letter["id"], identity=OPS, reason=WHY)
            eventually(
                lambda: (
                    app.record(failed.id).get("generation") == "1"
                    and app.record(failed.id)["state"] == "dead_lettered"
                ),
                "the replay run by the app's worker",
                why=lambda: f"{app.record(failed.id)}\n{app.logs()}",
            )
    finally:
        keys = list(app.redis.scan_iter(f"shop:{app.prefix}*"))
        app.redis.delete(*keys, "nothing")
        app.close()


def _letters(database: Any, job_id: str) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        with database.connect() as connection:
            return stored_letters(connection, job_id)

    eventually(found, "the letter in Postgres")
    return found()


def test_a_queue_that_nobody_named_is_published_to_as_kombu_would(
    publisher: AnyQueuePublisher, records: Records, settings: Settings
) -> None:
    queue = f"{settings.namespace}.stranger"
    publisher.check(queue)
    send(publisher, queue, priority=4)
    assert records.client.llen(f"{queue}\x06\x163") == 1


def place(records: Records, **changes: Any) -> AnnouncedQueue:
    namespace = records.settings.namespace
    here = AnnouncedQueue(
        f"{namespace}.orders",
        broker_mark(records.client, namespace),
        Layout.of({**ODD, "global_keyprefix": f"{namespace}/"}),
        seen_us=records.now_us(),
    )
    return replace(here, **changes)


def test_a_named_queue_is_published_to_where_its_workers_read(
    publisher: AnyQueuePublisher, records: Records, settings: Settings
) -> None:
    here = place(records)
    AnnouncedQueues(records.client, settings.namespace).report([here])
    publisher.check(here.queue)
    send(publisher, here.queue, priority=4)
    (raw,) = records.client.lrange(f"{settings.namespace}/{here.queue}~2", 0, -1)
    assert json.loads(raw)["properties"]["priority"] == 4


def test_workers_that_disagree_are_waited_for_and_told_what_to_do(
    publisher: AnyQueuePublisher, records: Records, settings: Settings
) -> None:
    here = place(records)
    AnnouncedQueues(records.client, settings.namespace).report([here, replace(here, layout=PLAIN)])
    with pytest.raises(PublishFailed, match=r"2 different sets of .* \(TASKYARD_NAMESPACE\)"):
        publisher.check(here.queue)
    with pytest.raises(
        PublishFailed, match=r"job j was not published: .* 2 different sets of keys"
    ):
        send(publisher, here.queue)


def test_what_a_later_version_adds_is_ignored(records: Records, settings: Settings) -> None:
    places, mine = AnnouncedQueues(records.client, settings.namespace), place(records)
    places.report([mine])
    ((field, value),) = records.client.hgetall(places.key).items()
    document = json.loads(value)
    assert document["version"] == 1
    document["layout"]["later"] = document["later"] = "unknown"
    records.client.hset(places.key, field, json.dumps(document))
    assert places.of(mine.queue) == [mine]


def test_a_former_fleet_does_not_count_against_the_present_one(
    records: Records, settings: Settings
) -> None:
    here = place(records)
    former = replace(here, layout=PLAIN, seen_us=here.seen_us - 3_600_000_000)
    places = AnnouncedQueues(records.client, settings.namespace)
    places.report([former, here])
    assert places.of(here.queue) == [here]


def test_what_nobody_said_for_a_month_is_forgotten(records: Records, settings: Settings) -> None:
    here = place(records)
    long_ago = replace(here, queue="old", seen_us=here.seen_us - 40 * 86_400_000_000)
    places = AnnouncedQueues(records.client, settings.namespace)
    places.report([long_ago])
    assert places.of("old") == [long_ago]
    places.report([here])
    assert places.all() == [here]


def test_a_queue_at_another_broker_is_refused_and_told_what_to_do(
    publisher: AnyQueuePublisher, records: Records, settings: Settings
) -> None:
    there = place(records, mark=uuid.uuid4().hex)
    AnnouncedQueues(records.client, settings.namespace).report([there])
    with pytest.raises(Refused, match=r"another broker .* set TASKYARD_BROKER_URL"):
        publisher.check(there.queue)
