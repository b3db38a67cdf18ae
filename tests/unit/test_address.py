"""A URL is read once, as it was written, and compared by what it means."""

from __future__ import annotations

import ssl

import pytest

from taskyard.address import amqp_address, redis_address, same_server
from taskyard.errors import InvalidSettings

SAME = [
    ("redis://localhost", "redis://localhost:6379/0"),
    ("redis://localhost/", "redis://127.0.0.1:6379"),
    ("redis://[::1]:6379/0", "redis://LOCALHOST"),
    ("redis:///2", "redis://localhost?db=2"),
    ("redis://h/3", "redis://h?virtual_host=3"),
    ("redis://user:p%40ss@h:6379/0", "redis://h"),
    ("redis://:a@h", "redis://:b@h."),
    ("redis://h/0?socket_timeout=2&client_name=x", "redis://h/0?client_name=x&socket_timeout=2"),
    ("rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required", "rediss://h:6379"),
    ("unix:///run/redis.sock?db=1", "redis+socket:///run/redis.sock?virtual_host=1"),
    ("sentinel://a,b/main/0", "sentinel://b:26379,c:26379/main"),
    ("amqp://h", "amqp://guest:guest@h:5672//"),
    ("amqp://h/", "pyamqp://h:5672/%2F"),
    ("amqp://h//prod", "amqp://u:p%2Fw@H/%2Fprod"),
    ("amqps://h", "amqps://h:5671//?cacertfile=/ca.pem"),
    ("amqp://a;amqp://b", "amqp://b//"),
]
OTHERS = [
    ("redis://h", "redis://g"),
    ("redis://h/0", "redis://h/1"),
    ("redis://h:6379", "redis://h:6380"),
    ("redis://h:5672", "amqp://h:5672"),
    ("unix:///run/a.sock", "unix:///run/b.sock"),
    ("unix:///run/a.sock", "unix:///run/a.sock?db=1"),
    ("sentinel://a/main", "sentinel://a/other"),
    ("sentinel://a/main", "sentinel://b/main"),
    ("sentinel://a/main", "redis://a:26379"),
    ("amqp://h", "amqps://h"),
    ("amqp://h/a", "amqp://h/b"),
    ("amqp://h/prod", "amqp://h//prod"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_server_however_it_is_spelled(one: str, other: str) -> None:
    assert same_server(one, other)
    assert same_server(other, one)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_two_servers_however_alike(one: str, other: str) -> None:
    assert not same_server(one, other)
    assert not same_server(other, one)


def test_what_a_redis_url_says_reaches_the_client() -> None:
    address = redis_address(
        "rediss://us%3Aer:p%2Fw%40@h:7000/4?ssl_cert_reqs=CERT_OPTIONAL&ssl_ca_certs=%2Fca%20x.pem"
        "&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False&socket_timeout=1.5"
        "&socket_keepalive=no&client_name=shop"
    )
    assert (address.hosts, address.database) == ((("h", 7000),), 4)
    assert (address.username, address.password) == ("us:er", "p/w@")
    assert address.tls == {
        "ssl_cert_reqs": "optional",
        "ssl_ca_certs": "/ca x.pem",
        "ssl_certfile": "/c.pem",
        "ssl_keyfile": "/k.pem",
        "ssl_check_hostname": False,
    }
    assert address.options == {
        "socket_timeout": 1.5,
        "socket_keepalive": False,
        "client_name": "shop",
    }


def test_a_server_behind_tls_is_verified_unless_the_url_says_otherwise() -> None:
    assert redis_address("redis://h").tls is None
    assert redis_address("rediss://h").tls == {"ssl_cert_reqs": "required"}
    assert redis_address("rediss://h?ssl_cert_reqs=none").tls == {"ssl_cert_reqs": "none"}
    assert amqp_address("amqp://h").tls is None
    required = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
    assert amqp_address("amqps://h").tls == required
    assert amqp_address("amqps://h?verify=verify_none").tls == {"cert_reqs": ssl.CERT_NONE}


def test_a_socket_of_this_machine_has_its_database_in_the_query() -> None:
    address = redis_address("unix://:secret@/run/my%20redis.sock?db=2")
    assert (address.path, address.database, address.password) == ("/run/my redis.sock", 2, "secret")


def test_sentinels_have_credentials_and_tls_of_their_own() -> None:
    address = redis_address(
        "sentinel://u:pw@a:1,b/main/2?sentinel_password=other&ssl_ca_certs=/ca.pem"
    )
    assert address.hosts == (("a", 1), ("b", 26379))
    assert (address.primary, address.database) == ("main", 2)
    assert (address.username, address.password) == ("u", "pw")
    assert address.tls == {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": "required"}
    assert address.sentinel == {"ssl": True, "password": "other", **address.tls}


def test_what_an_amqp_url_says_reaches_the_client() -> None:
    address = amqp_address(
        "amqps://u:p%40w@a/v?heartbeat=10&ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k"
        "&ssl_check_hostname=false;amqps://u:p%40w@b:5600/v?heartbeat=20"
    )
    assert address.urls == (
        "amqps://u:p%40w@a/v?heartbeat=10",
        "amqps://u:p%40w@b:5600/v?heartbeat=20",
    )
    assert address.hosts == (("a", 5671), ("b", 5600))
    assert address.virtual_host == "v"
    assert address.tls == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": "/ca.pem",
        "certfile": "/c",
        "keyfile": "/k",
    }


def test_rabbitmqs_own_names_of_tls_options_are_read_too() -> None:
    url = (
        "amqps://h/v?cacertfile=/ca.pem&certfile=/c&keyfile=/k&verify=verify_peer"
        "&server_name_indication=inner"
    )
    assert amqp_address(url).tls == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "inner",
        "ca_certs": "/ca.pem",
        "certfile": "/c",
        "keyfile": "/k",
    }


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:s3cret#b@host:6379/0", "percent-encoded"),
        ("redis://:s3cret/b@host", "percent-encoded"),
        ("redis://h:123456/0", "percent-encoded"),
        ("redis://h:6379/main", "number of a database"),
        ("redis://h?db=x", "number of a database"),
        ("redis://a;redis://b", "expected one server"),
        ("redis://a,b", "expected one host"),
        ("redis://h?decode_responses=true", "no option 'decode_responses'"),
        ("redis://h?ssl_ca_certs=/ca.pem", "Write rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "expected required, optional, none"),
        ("rediss://h?ssl_check_hostname=maybe", "expected true or false"),
        ("redis://h?socket_timeout=soon", "expected a number, got 'soon'"),
        ("sentinel://h", "primary-name"),
        ("sentinel://h:x/main", "percent-encoded"),
        ("http://h", "got http://"),
    ],
)
def test_a_redis_url_that_cannot_be_meant_is_refused_with_what_was_expected(
    url: str, why: str
) -> None:
    with pytest.raises(InvalidSettings, match=why) as refused:
        redis_address(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("amqp://u:s3cret#@h", "percent-encoded"),
        ("amqp://a,b/v", "between the URLs of a cluster"),
        ("amqp://a/v;amqp://b/w", "one cluster"),
        ("amqp://a/v;amqps://b/v", "one cluster"),
        ("amqps://a?ssl_ca_certs=/x;amqps://b?ssl_ca_certs=/y", "same TLS options"),
        ("amqp://h?ssl_ca_certs=/ca.pem", "Write amqps://"),
        ("amqp://h?frame_max=9", "no option 'frame_max'"),
        ("kafka://h", "got kafka://"),
    ],
)
def test_an_amqp_url_that_cannot_be_meant_is_refused_with_what_was_expected(
    url: str, why: str
) -> None:
    with pytest.raises(InvalidSettings, match=why) as refused:
        amqp_address(url)
    assert "s3cret" not in str(refused.value)
