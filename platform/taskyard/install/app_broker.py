"""The broker to which an installed app publishes, connected as for the app's own tasks.

kombu parses the app's configuration, and Taskyard uses the result: URLs, `broker_use_ssl`,
`broker_transport_options`, `broker_user` and others. A URL that is built again from parts would
lose some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from kombu import Connection
from kombu.transport.redis import SentinelTransport
from kombu.utils.imports import symbol_by_name
from kombu.utils.url import parse_url, url_to_parts

from taskyard.address import RedisAddress, Server, server_of
from taskyard.broker import read_any_header, transport_options
from taskyard.broker.connection import keep_transport
from taskyard.errors import InvalidSettings
from taskyard.settings import Settings

__all__ = ["AppBroker"]

_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
# The app's transport options for Redis that concern the connection. The others name its keys, which
# are not those of letters.
_REACHING: Final = (
    "master_name",
    "min_other_sentinels",
    "sentinel_kwargs",
    "credential_provider",
    "client_name",
    "socket_keepalive_options",
)
_OF_THE_CLIENT: Final = ("client_name", "socket_keepalive_options")


class AppBroker:
    """The broker in the app's configuration, which is read at first use.

    It connects to nothing.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    @cached_property
    def _written(self) -> Any:
        """Return the connection on which the app would publish, not opened yet.

        kombu has read the app's configuration into it.
        """
        return self._app.connection_for_write()

    @cached_property
    def kind(self) -> str:
        """Return the kind of broker: `redis` (also by Sentinel), `amqp`, or another kombu name."""
        return str(self._written.get_transport_cls().driver_type)

    @cached_property
    def server(self) -> Server | None:
        """Return the broker's server; None for a kind that is neither Redis nor RabbitMQ."""
        return _server(self._written)

    @property
    def tls(self) -> Mapping[str, Any] | None:
        """Return the TLS options as `broker_use_ssl` would have them; None without TLS."""
        ssl = self._written.ssl
        return dict(ssl) if isinstance(ssl, Mapping) and ssl else None

    @property
    def transport_class(self) -> type:
        """Return kombu's transport class for the broker, or the app's own class."""
        cls: type = self._written.get_transport_cls()
        return cls

    @property
    def transport_options(self) -> Mapping[str, Any]:
        """Return the app's own `broker_transport_options`."""
        return dict(self._written.transport_options or {})

    @property
    def own_transport(self) -> str | None:
        """Return the name of Taskyard's transport for the broker.

        None if there is none, or if kombu accepts no other than the app's.
        """
        if self.kind != "redis" or not self.is_one or "://" in (self._written.hostname or ""):
            return None
        kind = "SentinelTransport" if self._by_sentinel else "Transport"
        return f"taskyard.transport:{kind}"

    @property
    def is_one(self) -> bool:
        """Return whether the broker is one server or one cluster.

        Several Redis servers to choose from are not one.
        """
        several = self.server is not None and len(self.server.places) > 1
        return self.kind != "redis" or self._by_sentinel or not several

    @property
    def reads_elsewhere(self) -> bool:
        """Return whether workers read from another broker than the app publishes to.

        The brokers are compared by their names.
        """
        read = _server(self._app.connection_for_read())
        return not (self.server is None or read is None or self.server.is_same(read))

    @property
    def _by_sentinel(self) -> bool:
        return issubclass(self._written.get_transport_cls(), SentinelTransport)

    def redis(self) -> RedisAddress:
        """Return the address of a Redis broker, for Taskyard's own clients."""
        return _redis(self._written)

    def connect(self, settings: Settings, keyprefix: str | None = None) -> Connection:
        """Return a connection to the app's broker with Taskyard's time limits.

        `keyprefix` is as in `taskyard.broker.connection`.
        """
        made = self._app.connection_for_write()
        own = dict(made.transport_options or {})
        if self.kind == "redis":
            own = {name: value for name, value in own.items() if name in _REACHING}
        made.transport_options = {**own, **transport_options(settings, keyprefix)}
        keep_transport(made)
        read_any_header(made)
        return made


def _server(connection: Any) -> Server | None:
    """Return the server to which an unopened connection leads.

    With several URLs, the server is at any of their hosts.
    """
    kind = str(connection.get_transport_cls().driver_type)
    if kind == "redis":
        own = server_of(_redis(connection))
        if issubclass(connection.get_transport_cls(), SentinelTransport):
            return own
        hosts = [(at["hostname"], at["port"]) for at in map(parse_url, connection.alt)]
        others = Server.of("redis", [(host or "", port or _REDIS_PORT) for host, port in hosts], "")
        return replace(own, places=own.places | others.places)
    if kind != "amqp":
        return None
    port = int(connection.transport.default_connection_params["port"])
    hosts = [(connection.hostname, connection.port)]
    hosts += [(at["hostname"], at["port"]) for at in map(parse_url, connection.alt)]
    own_hosts = [(host or "", own_port or port) for host, own_port in hosts]
    return Server.of("amqp", own_hosts, connection.virtual_host or "/")


def _redis(connection: Any) -> RedisAddress:
    """Return the Redis address as kombu's Redis transport reads it."""
    options = connection.transport_options or {}
    common: dict[str, Any] = {
        "username": connection.userid,
        "password": connection.password,
        "tls": connection.ssl if isinstance(connection.ssl, Mapping) and connection.ssl else None,
        "options": {name: options[name] for name in _OF_THE_CLIENT if name in options},
    }
    provider = connection.credential_provider
    host = connection.hostname or "localhost"
    if "://" in host:
        return _at_socket(host, connection, common)
    if provider is not None:
        common["options"]["credential_provider"] = _provider(provider)
    number = _database(connection.virtual_host)
    if not issubclass(connection.get_transport_cls(), SentinelTransport):
        return RedisAddress(((host, connection.port or _REDIS_PORT),), number, **common)
    urls = [url for url in connection.alt if urlsplit(url).scheme == "sentinel"]
    known = [(parts["hostname"], parts["port"]) for parts in map(parse_url, urls)]
    nodes = known or [(host, connection.port)]
    return RedisAddress(
        tuple((name or "localhost", port or _SENTINEL_PORT) for name, port in nodes),
        number,
        primary=str(options.get("master_name") or ""),
        sentinel=options.get("sentinel_kwargs") or {},
        **common,
    )


def _at_socket(host: str, connection: Any, common: dict[str, Any]) -> RedisAddress:
    """Return the address of a Redis at a Unix socket (`redis+socket://`).

    Kombu leaves the part after the plus to its transport.
    """
    parts = url_to_parts(host)
    provider = parts.query.get("credential_provider")
    if provider is not None:
        common["options"]["credential_provider"] = _provider(provider)
    number = _database(parts.query.get("virtual_host", connection.virtual_host))
    account = {"username": parts.username, "password": parts.password, "tls": None}
    return RedisAddress((), number, path=f"/{parts.path or ''}", **{**common, **account})


def _provider(named: Any) -> Any:
    return symbol_by_name(named)() if isinstance(named, str) else named


def _database(part: object) -> int:
    text = str(part or "").strip("/") or "0"
    if not (text.isascii() and text.isdigit()):
        raise InvalidSettings(
            f"the app's broker URL: expected the number of a database after the host, got {text!r}"
        )
    return int(text)
