"""Decide whether two URLs mean the same server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

from taskyard.address.amqp import AMQP_SCHEMES, amqp_address
from taskyard.address.redis import RedisAddress, redis_address

__all__ = ["Server", "same_server", "server_at", "server_of"]


@dataclass(frozen=True, slots=True)
class Server:
    """The identity of a server: no credentials, no options, and defaults written out.

    `places` are the hosts with ports, or the path of a socket; each place leads to the same server
    or cluster. `part` is the database or the virtual host. `primary` is the name of the primary
    that the Sentinels know.
    """

    kind: str
    places: frozenset[str]
    part: str
    primary: str | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        hosts: Iterable[tuple[str, int]],
        part: object,
        *,
        path: str | None = None,
        primary: str | None = None,
    ) -> Self:
        """Return the server that is reached at any of `hosts` (name, port), or at a socket.

        With the socket's `path`, `hosts` are ignored.
        """
        places = [_place(host, port) for host, port in hosts] if path is None else [path]
        return cls(kind, frozenset(places), str(part), primary)

    def url(self) -> str:
        """Return a URL with only the location: no credentials, no TLS."""
        part = quote(self.part, safe="")
        if self.primary is not None:
            hosts = ",".join(sorted(self.places))
            return f"sentinel://{hosts}/{quote(self.primary, safe='')}/{part}"
        place = min(self.places)
        if place.startswith("/"):
            return f"unix://{quote(place)}?db={part}"
        return f"{self.kind}://{place}/{part}"

    def is_same(self, other: Server) -> bool:
        """Return whether both objects name the same server and the same part of it.

        Only the names are compared; no server is asked.
        """
        return (
            (self.kind, self.part, self.primary) == (other.kind, other.part, other.primary)
        ) and bool(self.places & other.places)


def _place(host: str, port: int) -> str:
    name = _plain_host(host)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _plain_host(host: str) -> str:
    """Return a host's name in small letters; every name of this machine becomes the same name."""
    name = host.strip().lower().rstrip(".")
    if name in ("", "localhost", "localhost.localdomain"):
        return "localhost"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return "localhost" if address.is_loopback else address.compressed


def server_at(url: str) -> Server:
    """Return the server that `url` names.

    Raises `InvalidSettings` for an unknown kind of broker.
    """
    if urlsplit(url).scheme in AMQP_SCHEMES:
        amqp = amqp_address(url)
        return Server.of("amqp", amqp.hosts, amqp.virtual_host)
    return server_of(redis_address(url))


def server_of(address: RedisAddress) -> Server:
    """Return the Redis at an address."""
    return Server.of(
        "redis", address.hosts, address.database, path=address.path, primary=address.primary
    )


def same_server(one: str, other: str) -> bool:
    """Return whether two URLs name one server, and one database or virtual host in it.

    Raises `InvalidSettings`.
    """
    return server_at(one).is_same(server_at(other))
