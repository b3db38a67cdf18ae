"""The broker's URL as kombu and Celery get it, with all that it says."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from taskyard.broker import connection, make_app
from taskyard.broker.connection import same_redis
from taskyard.errors import InvalidSettings
from taskyard.jobs import Catalogue
from taskyard.settings import Settings

CLUSTER = "amqps://u:p%2F@a/v;amqps://u:p%2F@b:5600/v?ssl_ca_certs=/ca.pem"


def settings(broker: str, records: str = "redis://records/0") -> Settings:
    return Settings(broker_url=broker, redis_url=records)


@pytest.mark.parametrize(
    ("broker", "records", "same"),
    [
        ("redis://localhost", "redis://127.0.0.1:6379/0", True),
        ("redis://:a@h", "redis://default:a@H:6379/0?client_name=x", True),
        ("unix:///r.sock", "redis+socket:///r.sock?virtual_host=0", True),
        ("sentinel://a,b/main", "sentinel://b,c/main/0", True),
        ("redis://h/0", "redis://h/1", False),
        # One script would need the rights of both.
        ("redis://queues:a@h", "redis://records:b@h", False),
        ("amqp://h", "redis://h", False),
    ],
)
def test_one_script_serves_records_and_broker_that_mean_the_same(
    broker: str, records: str, same: bool
) -> None:
    assert same_redis(settings(broker, records)) is same


@pytest.mark.parametrize(
    ("url", "ssl_options", "transport_options"),
    [
        ("redis://u:p%2F@h:1/3?client_name=x", False, {"client_name": "x"}),
        (
            "rediss://h/0?ssl_ca_certs=/ca.pem",
            {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"},
            {},
        ),
        ("rediss://h/0", {"ssl_cert_reqs": "required"}, {}),
        ("sentinel://:p@a,b:2/main/1", False, {"master_name": "main"}),
        ("amqp://h", False, {"confirm_publish": True}),
    ],
)
def test_workers_and_publishers_have_the_same_of_it(
    url: str, ssl_options: Any, transport_options: dict[str, Any]
) -> None:
    own = connection(settings(url))
    with make_app(settings(url), Catalogue({})) as app:
        workers = app.connection_for_read()
    for made in (own, workers):
        assert (made.ssl or False) == ssl_options
        assert transport_options.items() <= made.transport_options.items()
        assert made.clone().ssl == made.ssl
    assert own.as_uri(include_password=True) == workers.as_uri(include_password=True)


def test_each_host_of_a_cluster_must_have_a_certificate_of_its_own() -> None:
    made = connection(settings(CLUSTER))
    expected = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": "/ca.pem"}
    assert made.ssl == {**expected, "server_hostname": "a"}
    for copy in (made, made.clone()):
        copy.maybe_switch_next()
        assert (copy.hostname, copy.port, copy.password) == ("b", 5600, "p/")
        assert copy.ssl == {**expected, "server_hostname": "b"}
        copy.maybe_switch_next()
        assert copy.ssl["server_hostname"] == "a"


def test_a_sentinel_that_does_not_answer_leaves_the_transport_as_it_is() -> None:
    made = connection(settings("sentinel://a,b/main"))
    made.maybe_switch_next()
    assert made.transport_cls == "taskyard.transport:SentinelTransport"
    assert made.alt == ["sentinel://a:26379/0", "sentinel://b:26379/0"]


@pytest.mark.parametrize("url", ["kafka://h", "redis://a;redis://b", "amqps://h?frame_max=1"])
def test_a_url_that_cannot_be_read_names_its_variable(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"^TASKYARD_BROKER_URL: "):
        connection(settings(url))
