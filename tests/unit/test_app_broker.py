"""An app's broker is read from its configuration as kombu reads it, and nothing of it is lost."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from taskyard.errors import InvalidSettings
from taskyard.install import Mode, install, plan
from taskyard.install.app_broker import AppBroker
from taskyard.install.publication_broker import (
    app_settings,
    goes_by_own,
    strays_to,
    why_unsupported,
)
from taskyard.settings import Settings

TLS = {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", set_as_current=False) as made:
        yield made


def nothing() -> None: ...


def broker_of(app: Celery, **configuration: Any) -> AppBroker:
    app.conf.update(configuration)
    return AppBroker(app)


def given(url: str | None = None) -> Settings:
    return Settings(redis_url="redis://records/0", broker_url=url)


@pytest.mark.parametrize(
    ("configuration", "place"),
    [
        ({"broker_url": "redis://h"}, "redis://h:6379/0"),
        ({"broker_url": "redis://h:1/3"}, "redis://h:1/3"),
        ({"broker_url": "rediss://u:p%40@h/0?ssl_ca_certs=/ca.pem"}, "redis://h:6379/0"),
        ({"broker_url": "redis://h", "broker_use_ssl": TLS}, "redis://h:6379/0"),
        ({"broker_url": "redis+socket:///run/r.sock?virtual_host=2"}, "unix:///run/r.sock?db=2"),
        ({"broker_read_url": "redis://r", "broker_write_url": "redis://w/1"}, "redis://w:6379/1"),
        (
            {
                "broker_url": "sentinel://:p@a:1/2;sentinel://b/2",
                "broker_transport_options": {"master_name": "main"},
            },
            "sentinel://a:1,b:26379/main/2",
        ),
        ({"broker_url": "amqp://u:p%2F@h//shop"}, "amqp://h:5672/%2Fshop"),
        ({"broker_url": "amqp://h", "broker_vhost": "shop"}, "amqp://h:5672/shop"),
        ({"broker_url": "amqp://h", "broker_use_ssl": True}, "amqp://h:5671/%2F"),
        ({"broker_url": "amqps://h"}, "amqp://h:5671/%2F"),
        ({"broker_url": ["amqp://a", "amqp://b:1"]}, "amqp://a:5672/%2F"),
    ],
)
def test_where_the_app_publishes_is_known_however_it_is_configured(
    app: Celery, configuration: dict[str, Any], place: str
) -> None:
    broker = broker_of(app, **configuration)
    assert broker.server is not None
    assert broker.server.url() == place
    assert why_unsupported(broker, given()) is None
    assert app_settings(broker, given()).broker_url == place


@pytest.mark.parametrize(
    ("configuration", "tls"),
    [
        ({"broker_url": "redis://h"}, None),
        ({"broker_url": "redis://h", "broker_use_ssl": TLS}, TLS),
        ({"broker_url": "rediss://h?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem"}, TLS),
        # As kombu has it, and therefore as the app's own tasks go.
        ({"broker_url": "rediss://h"}, {"ssl_cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_clients_of_our_own_use_the_tls_of_the_app(
    app: Celery, configuration: dict[str, Any], tls: dict[str, Any] | None
) -> None:
    assert broker_of(app, **configuration).redis().tls == tls


def test_clients_of_our_own_use_the_account_of_the_app(app: Celery) -> None:
    address = broker_of(app, broker_url="redis://u%3A:p%2F%40@h:1/3").redis()
    assert (address.username, address.password) == ("u:", "p/@")
    socket = broker_of(app, broker_url="redis+socket://u:p%2F@/run/r.sock").redis()
    assert (socket.username, socket.password, socket.path) == ("u", "p/", "/run/r.sock")


def test_sentinels_are_asked_with_what_only_they_are_told(app: Celery) -> None:
    options = {"master_name": "main", "sentinel_kwargs": {"password": "theirs"}}
    broker = broker_of(
        app,
        broker_url="sentinel://:ours@a:1/2;sentinel://b:2/2",
        broker_transport_options=options,
    )
    address = broker.redis()
    assert address.hosts == (("a", 1), ("b", 2))
    assert (address.primary, address.database) == ("main", 2)
    assert (address.password, address.sentinel) == ("ours", {"password": "theirs"})


@pytest.mark.parametrize(
    ("configuration", "options"),
    [
        (
            {
                "broker_url": "redis://h",
                "broker_transport_options": {"global_keyprefix": "x", "client_name": "shop"},
            },
            {"client_name": "shop"},
        ),
        (
            {"broker_url": "amqp://h", "broker_transport_options": {"read_timeout": 3}},
            {"read_timeout": 3, "confirm_publish": True},
        ),
    ],
)
def test_what_we_publish_goes_by_the_apps_options_and_ours(
    app: Celery, configuration: dict[str, Any], options: dict[str, Any]
) -> None:
    broker = broker_of(app, **configuration)
    made = broker.connect(app_settings(broker, given()))
    assert options.items() <= made.transport_options.items()
    assert not made.transport_options.get("global_keyprefix")


def test_what_we_publish_goes_by_the_apps_tls_account_and_hosts(app: Celery) -> None:
    tls = {"ca_certs": "/ca.pem", "certfile": "/c.pem", "keyfile": "/k.pem"}
    broker = broker_of(app, broker_url="amqp://u:p%2F@a//v;amqp://u:p%2F@b//v", broker_use_ssl=tls)
    made = broker.connect(app_settings(broker, given()))
    assert made.ssl == tls
    assert (made.userid, made.password, made.virtual_host) == ("u", "p/", "/v")
    assert made.alt == ["amqp://u:p%2F@a//v", "amqp://u:p%2F@b//v"]


REDIS_LIST = {"broker_url": "redis://a;redis://b"}


@pytest.mark.parametrize(
    ("configuration", "named", "why"),
    [
        ({"broker_url": "memory://"}, "redis://a", "neither one Redis nor RabbitMQ"),
        (REDIS_LIST, None, "one of several Redis servers"),
        (REDIS_LIST, "redis://elsewhere", "one of several Redis servers"),
        (REDIS_LIST, "redis://b", None),
        ({"broker_url": "redis://a;redis://a:6379/0"}, None, None),
    ],
)
def test_a_broker_where_nothing_could_wait_is_watched_at_most(
    app: Celery, configuration: dict[str, Any], named: str | None, why: str | None
) -> None:
    text = why_unsupported(broker_of(app, **configuration), given(named))
    assert why in (text or "") if why else text is None


def test_of_several_redis_servers_the_named_one_gets_what_we_publish(app: Celery) -> None:
    broker, settings = broker_of(app, **REDIS_LIST), given("redis://:p@b/0")
    assert not goes_by_own(broker)
    assert app_settings(broker, settings).broker_url == "redis://:p@b/0"


def test_letters_of_another_kind_of_broker_go_to_the_records(app: Celery) -> None:
    broker = broker_of(app, broker_url="memory://")
    assert app_settings(broker, given()).broker_url == "redis://records/0"


@pytest.mark.parametrize(
    ("configuration", "named", "text"),
    [
        ({"broker_url": "redis://h"}, "redis://u:p@H:6379/0?client_name=x", None),
        ({"broker_url": "redis://h"}, "redis://h/1", "redis://h:6379/0"),
        ({"broker_url": "redis://u:secret@h"}, "redis://g", "redis://h:6379/0"),
        ({"broker_url": "amqp://a;amqp://b"}, "amqp://b//", None),
        ({"broker_url": "amqp://a", "broker_use_ssl": True}, "amqps://a?cacertfile=/ca", None),
        ({"broker_url": "memory://"}, "redis://h", None),
        ({"broker_url": "redis://h"}, None, None),
    ],
)
def test_another_broker_than_the_apps_is_told_by_its_meaning(
    app: Celery, configuration: dict[str, Any], named: str | None, text: str | None
) -> None:
    assert strays_to(broker_of(app, **configuration), given(named)) == text


@pytest.mark.parametrize(
    ("read", "write", "elsewhere"),
    [
        ("redis://u:p@h/0", "redis://h:6379", False),
        ("redis://h/0", "redis://h/1", True),
        ("amqp://a//", "amqp://b//", True),
        ("memory://", "memory://", False),
    ],
)
def test_reading_from_another_broker_is_told_by_its_meaning(
    app: Celery, read: str, write: str, elsewhere: bool
) -> None:
    broker = broker_of(app, broker_read_url=read, broker_write_url=write)
    assert broker.reads_elsewhere is elsewhere


@pytest.mark.parametrize(
    ("configuration", "transport", "tls"),
    [
        ({"broker_url": "redis://h"}, "Transport", None),
        ({"broker_url": "rediss://h"}, "Transport", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ({"broker_url": "redis://h", "broker_use_ssl": TLS}, "Transport", TLS),
        (
            {
                "broker_url": "sentinel://a;sentinel://b",
                "broker_transport_options": {"master_name": "main"},
            },
            "SentinelTransport",
            None,
        ),
    ],
)
def test_our_transport_in_the_place_of_kombus_keeps_the_tls(
    app: Celery, configuration: dict[str, Any], transport: str, tls: dict[str, Any] | None
) -> None:
    app.conf.update(configuration)
    install(app, settings=given(), transport=True)
    with app.connection_for_read() as connection:
        assert connection.transport_cls == f"taskyard.transport:{transport}"
        assert (connection.ssl or None) == tls
    broker = AppBroker(app)
    assert broker.kind == "redis"
    assert broker.redis().tls == tls


@pytest.mark.parametrize(
    "url", ["amqp://h", "memory://", "redis+socket:///r.sock", "redis://a;redis://b"]
)
def test_our_transport_is_refused_where_it_cannot_serve(app: Celery, url: str) -> None:
    app.conf.broker_url = url
    _ = app.conf.broker_url  # read once, so that it is configured
    with pytest.raises(InvalidSettings, match=r"install\(transport=True\) needs"):
        install(app, settings=given(), transport=True)


def test_a_broker_that_one_url_does_not_reach_is_watched_and_says_what_to_set(app: Celery) -> None:
    app.conf.update(REDIS_LIST)
    app.task(name="a", lazy=False, shared=False)(nothing)
    install(app, settings=given())
    [planned] = plan(app).tasks
    assert planned.mode is Mode.OBSERVE
    assert "set TASKYARD_BROKER_URL to the one in use" in planned.warnings[0]
