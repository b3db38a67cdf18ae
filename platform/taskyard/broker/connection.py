"""Build the kombu connection to the broker, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from kombu import Connection
from kombu.transport.redis import SentinelTransport

from taskyard.address import (
    AMQP_SCHEMES,
    REDIS_SCHEMES,
    RedisAddress,
    amqp_address,
    redis_address,
    same_server,
)
from taskyard.broker.redis_keys import Layout
from taskyard.broker.undecodable_headers import read_any_header
from taskyard.errors import InvalidSettings
from taskyard.queues import URGENCY_STEPS
from taskyard.records import Keys
from taskyard.settings import Settings
from taskyard.store import BROKER, sentinel_options
from taskyard.transport import BURST

__all__ = [
    "BrokerConnection",
    "Wiring",
    "check_broker_url",
    "connection",
    "keep_transport",
    "own_layout",
    "same_redis",
    "transport_options",
    "wiring",
]


@dataclass(frozen=True, slots=True)
class Wiring:
    """A broker's address and TLS options, for kombu and Celery.

    `ssl` is for kombu's `Connection` and Celery's `broker_use_ssl`.
    """

    url: str
    transport: str | None
    ssl: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class _OfItsHost(dict[str, Any]):
    """TLS options that name the host in use, also in copies of the connection."""


class BrokerConnection(Connection):  # type: ignore[misc]
    """kombu's connection, which checks each cluster host's certificate for that host.

    kombu writes the first host's name into the options that all hosts share.
    """

    def _init_params(self, **params: Any) -> None:
        tls = params["ssl"]
        if isinstance(tls, _OfItsHost) or (tls and tls.get("server_hostname", "") is None):
            params["ssl"] = _OfItsHost(tls, server_hostname=params["hostname"])
        super()._init_params(**params)


def transport_options(settings: Settings, keyprefix: str | None = None) -> dict[str, Any]:
    """Return options of kombu's transport: short timeouts, confirmation, priorities, namespace.

    Outside the default namespace every key begins with the namespace, kombu's own keys too, so
    that one pattern of an ACL covers all of them. In the default namespace keys have kombu's
    usual names, for foreign clients. `keyprefix` replaces both; None keeps them.
    """
    if is_amqp(settings):
        timeout = settings.publish_timeout_s
        return {"confirm_publish": True, "connect_timeout": timeout, "write_timeout": timeout}
    prefix = Keys(settings.namespace).prefix
    return {
        "global_keyprefix": prefix if keyprefix is None else keyprefix,
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_throttle": 1,
        "priority_steps": list(URGENCY_STEPS),
        "burst": BURST,
        "unacked_restore_interval": 1,
        # kombu's client puts the prefix before this too.
        "heartbeats_key": f"{settings.namespace}:heartbeats".removeprefix(prefix),
        "socket_timeout": settings.publish_timeout_s,
        "socket_connect_timeout": settings.publish_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }


def own_layout(settings: Settings) -> Layout:
    """Return the names of Taskyard's keys in a Redis broker."""
    return Layout.of(transport_options(settings))


def check_broker_url(settings: Settings) -> str:
    """Return the broker's URL; raises `InvalidSettings` if its scheme is not supported."""
    url = settings.need_broker_url()
    scheme = urlsplit(url).scheme
    if scheme not in REDIS_SCHEMES + AMQP_SCHEMES:
        raise InvalidSettings(
            f"{BROKER}: expected {'://, '.join(REDIS_SCHEMES + AMQP_SCHEMES)}://, got {scheme}://"
        )
    try:
        (amqp_address if scheme in AMQP_SCHEMES else redis_address)(url)
    except InvalidSettings as error:
        raise InvalidSettings(f"{BROKER}: {error}") from None
    return url


def is_amqp(settings: Settings) -> bool:
    """Return whether the broker is RabbitMQ; raises `InvalidSettings` for an unknown scheme."""
    return urlsplit(check_broker_url(settings)).scheme in AMQP_SCHEMES


def wiring(url: str) -> Wiring:
    """Return the configuration of kombu and Celery for the broker at `url`.

    Raises `InvalidSettings`.
    """
    if urlsplit(url).scheme in AMQP_SCHEMES:
        amqp = amqp_address(url)
        return Wiring(";".join(amqp.urls), None, amqp.tls)
    redis = redis_address(url)
    if redis.primary is None:
        return Wiring(_kombu_url(redis), "taskyard.transport:Transport", redis.tls, redis.options)
    nodes = (f"sentinel://{_user(redis)}{_place(*at)}/{redis.database}" for at in redis.hosts)
    own = {"master_name": redis.primary, "sentinel_kwargs": sentinel_options(redis)}
    options = {**redis.options, **own}
    return Wiring(";".join(nodes), "taskyard.transport:SentinelTransport", redis.tls, options)


def _kombu_url(address: RedisAddress) -> str:
    if address.path is not None:
        # kombu's transport stands before a plus sign; here it is the name of ours.
        return f"taskyard+socket://{_user(address)}{quote(address.path)}?virtual_host={address.database}"
    ((host, port),) = address.hosts
    scheme = "redis" if address.tls is None else "rediss"
    return f"{scheme}://{_user(address)}{_place(host, port)}/{address.database}"


def _user(address: RedisAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    name, password = (quote(part or "", safe="") for part in (address.username, address.password))
    return f"{name}:{password}@"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def same_redis(settings: Settings) -> bool:
    """Return whether one script can serve records and broker.

    Both must use one Redis database under one account. Raises `InvalidSettings`.
    """
    broker, records = check_broker_url(settings), settings.need_redis_url()
    if is_amqp(settings) or not same_server(broker, records):
        return False
    # Another user may not have the right to push into the queues, or to read the records.
    return _account(broker) == _account(records)


def _account(url: str) -> str:
    return redis_address(url).username or "default"


def connection(settings: Settings, keyprefix: str | None = None) -> Connection:
    """Return a connection to the broker; it connects later. Raises `InvalidSettings`.

    `keyprefix` replaces our own prefix of the keys at a Redis broker.
    """
    wires = wiring(check_broker_url(settings))
    options = {**transport_options(settings, keyprefix), **wires.options}
    made = BrokerConnection(
        wires.url, transport=wires.transport, ssl=wires.ssl or False, transport_options=options
    )
    keep_transport(made)
    read_any_header(made)
    return made


def keep_transport(connection: Any) -> None:
    """Make a connection to Sentinels keep its transport when a Sentinel does not answer.

    After each failure kombu takes the next URL, and the transport of that URL's scheme. That is
    not necessary, because all URLs together name the Sentinels, which are asked in turn.
    """
    if issubclass(connection.get_transport_cls(), SentinelTransport):
        connection.cycle = None
