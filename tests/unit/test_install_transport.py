"""Which transport reads an installed app's queues, and what the app's own options do to ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu.transport.redis import Transport as KombusTransport

from taskyard.install import install, plan
from taskyard.settings import Settings
from taskyard.transport import Transport

OURS, KOMBUS = "taskyard.transport:Transport", "redis"
GIVEN = Settings(redis_url="redis://records/0")


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="redis://h/0", set_as_current=False) as made:
        yield made


def nothing() -> None: ...


def transport_of(app: Celery) -> str:
    with app.connection_for_read() as connection:
        return str(connection.transport_cls)


@pytest.mark.parametrize(
    ("how", "transport"),
    [
        ({}, OURS),
        ({"mode": "protect"}, OURS),
        ({"mode": "observe", "tasks": {"billing.*": "protect"}}, OURS),
        ({"mode": "observe"}, KOMBUS),
        ({"mode": "off"}, KOMBUS),
        ({"transport": False}, KOMBUS),
        ({"mode": "observe", "transport": True}, OURS),
    ],
)
def test_what_protects_at_one_redis_reads_by_our_transport_unless_told_otherwise(
    app: Celery, how: dict[str, Any], transport: str
) -> None:
    install(app, settings=GIVEN, **how)
    assert transport_of(app) == transport


@pytest.mark.parametrize(
    ("configuration", "transport"),
    [
        ({"broker_url": "redis://elsewhere:1/5"}, OURS),
        ({"broker_url": "rediss://h"}, OURS),
        (
            {
                "broker_url": "sentinel://a;sentinel://b",
                "broker_transport_options": {"master_name": "main"},
            },
            "taskyard.transport:SentinelTransport",
        ),
        ({"broker_url": "redis+socket:///run/r.sock"}, "redis"),
        ({"broker_url": "redis://a;redis://b"}, "redis"),
        ({"broker_url": "amqp://h"}, "amqp"),
        ({"broker_url": "memory://"}, "memory"),
        ({"broker_read_url": "amqp://h", "broker_write_url": "redis://h"}, "amqp"),
    ],
)
def test_where_ours_cannot_read_the_broker_kombus_stays(
    app: Celery, configuration: dict[str, Any], transport: str
) -> None:
    app.conf.update(configuration)
    install(app, settings=GIVEN)
    assert transport_of(app) == transport


class OwnTransport(KombusTransport):  # type: ignore[misc]
    """An app's own way to its Redis."""


def test_a_transport_that_the_app_names_itself_is_kept_and_said(app: Celery) -> None:
    app.conf.broker_transport = OwnTransport
    app.task(name="a", lazy=False, shared=False)(nothing)
    install(app, settings=GIVEN)
    assert plan(app).transport.why == "the app names a transport of its own, OwnTransport"
    with app.connection_for_read() as connection:
        assert connection.get_transport_cls() is OwnTransport


def test_the_apps_transport_options_come_before_ours(app: Celery) -> None:
    own = {
        "visibility_timeout": 77,
        "global_keyprefix": "shop:",
        "priority_steps": [0, 5],
        "sep": "~",
        "socket_timeout": 3,
        "unacked_restore_interval": 4,
        "fairness": 7,
        "queue_order_strategy": "sorted",
    }
    app.conf.broker_transport_options = own
    install(app, settings=GIVEN)
    with app.connection_for_read() as connection:
        options = connection.transport_options
        assert connection.get_transport_cls() is Transport
    assert {name: options[name] for name in own} == own
    assert options["heartbeats_key"] == "taskyard:heartbeats"


@pytest.mark.parametrize(
    ("own", "fairness"),
    [({}, None), ({"queue_order_strategy": "round_robin"}, None)]
    + [
        ({"queue_order_strategy": strategy}, 0) for strategy in ("sorted", "priority", "shop:Cycle")
    ],
)
def test_an_app_that_wants_its_first_queue_first_is_not_made_fair(
    app: Celery, own: dict[str, Any], fairness: int | None
) -> None:
    app.conf.broker_transport_options = own
    install(app, settings=GIVEN)
    with app.connection_for_read() as connection:
        assert connection.transport_options.get("fairness") == fairness


@pytest.mark.parametrize(
    ("how", "count"),
    [({}, 0), ({"transport": False}, 3), ({"mode": "observe", "transport": False}, 0)],
)
def test_the_plan_says_what_kombus_transport_leaves_unprotected(
    app: Celery, how: dict[str, Any], count: int
) -> None:
    app.conf.broker_transport_options = {"visibility_timeout": 77}
    app.task(name="a", lazy=False, shared=False)(nothing)
    install(app, settings=GIVEN, **how)
    unprotected = plan(app).unprotected
    assert len(unprotected) == count
    assert not count or "visibility_timeout, 77 s here" in unprotected[-1]


def test_a_task_that_protects_itself_beside_watched_ones_is_told_what_it_lacks(
    app: Celery,
) -> None:
    app.task(name="a", lazy=False, shared=False, taskyard="protect")(nothing)
    install(app, "observe", settings=GIVEN)
    found = plan(app)
    assert found.transport.why == "no task is protected, by neither `mode` nor `tasks` of install"
    assert len(found.unprotected) == 3
