"""The address of a Redis in a URL.

One server, a local socket, or the primary known to Sentinels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from taskyard.address.tls import TLS_PREFIX, read_tls
from taskyard.address.url import Url, flag, read_url
from taskyard.errors import InvalidSettings

__all__ = ["REDIS_SCHEMES", "RedisAddress", "redis_address"]

REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+socket", "sentinel")
_SOCKETS: Final = ("unix", "redis+socket")
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
# The credentials are written after the example, or redaction would mask them in it.
_FORMS: Final = {
    "sentinel": "sentinel://host:port,host:port/primary-name[/database]",
    "unix": "unix:///path/of/the.sock?db=0",
}
_FORM: Final = "redis://host:port/database (rediss:// with TLS)"
# redis-py's options that concern the connection and change no answer.
_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": flag,
    "health_check_interval": int,
    "retry_on_timeout": flag,
    "max_connections": int,
    "client_name": str,
}
_VALUES: Final[Mapping[Callable[[str], Any], str]] = {
    float: "a number",
    int: "a whole number",
    flag: "true or false",
}
_DATABASE: Final = ("db", "virtual_host")
_SENTINEL_CREDENTIALS: Final = ("sentinel_username", "sentinel_password")
_TLS: Final = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_min_version",
    }
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a Redis, with what a client needs to connect.

    With `primary`, `hosts` are the Sentinels that know this primary. `username` and `password` are
    those of the server itself. `tls` holds redis-py's `ssl_*` options, None without TLS. `options`
    holds redis-py's other options, `sentinel` the options for the connections to Sentinels.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    username: str | None = None
    password: Any = None
    path: str | None = None
    primary: str | None = None
    tls: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sentinel: Mapping[str, Any] = field(default_factory=dict)


def redis_address(url: str) -> RedisAddress:
    """Parse a URL of one of `REDIS_SCHEMES`; raises `InvalidSettings`."""
    form = _FORMS.get("unix" if url.startswith(_SOCKETS) else url.partition("://")[0], _FORM)
    if ";" in url.partition("?")[0]:
        raise InvalidSettings(
            f"expected one server, {form}, got several URLs. Name one of them; write several "
            f"Sentinels into one URL, separated by commas"
        )
    parts = read_url(url, form)
    if parts.scheme not in REDIS_SCHEMES:
        raise InvalidSettings(
            f"expected {form}, unix:// or sentinel://, with user:password@ before the host if it "
            f"needs them, got {parts.scheme or 'no scheme'}://"
        )
    _check_options(parts)
    common: dict[str, Any] = {
        "username": parts.username,
        "password": parts.password,
        "options": _read(parts, _OPTIONS, form),
    }
    if parts.scheme in _SOCKETS:
        path, number = f"/{parts.path}", _database(parts, "", form)
        return RedisAddress((), number, path=path, **common)
    if parts.scheme == "sentinel":
        return _sentinel(parts, common, form)
    if len(parts.hosts) > 1:
        raise InvalidSettings(f"expected one host, as in {form}, got {len(parts.hosts)}")
    ((host, port),) = parts.hosts
    tls = read_tls(parts.options, form) if parts.scheme == "rediss" else None
    place = ((host or "localhost", port or _PORT),)
    return RedisAddress(place, _database(parts, parts.path, form), tls=tls, **common)


def _sentinel(parts: Url, common: dict[str, Any], form: str) -> RedisAddress:
    primary, _, path = parts.path.strip("/").partition("/")
    if not primary or not all(host for host, _ in parts.hosts):
        raise InvalidSettings(
            f"a Sentinel URL has the form {form}, with user:password@ before the first host if "
            f"the primary needs them"
        )
    secure = any(name.startswith(TLS_PREFIX) for name in parts.options)
    tls = read_tls(parts.options, form) if secure else None
    own: dict[str, Any] = {} if tls is None else {"ssl": True, **tls}
    for name in _SENTINEL_CREDENTIALS:
        if name in parts.options:
            own[name.removeprefix("sentinel_")] = parts.options[name]
    hosts = tuple((host, port or _SENTINEL_PORT) for host, port in parts.hosts)
    number = _database(parts, path, form)
    return RedisAddress(hosts, number, primary=primary, tls=tls, sentinel=own, **common)


def _check_options(parts: Url) -> None:
    """Raise `InvalidSettings` for an option that redis-py would ignore, or that changes replies."""
    known = {*_OPTIONS, *_DATABASE, *_TLS}
    if parts.scheme == "sentinel":
        known.update(_SENTINEL_CREDENTIALS)
    unknown = sorted(parts.options.keys() - known)
    if unknown:
        raise InvalidSettings(
            f"a URL of {parts.scheme}:// has no option {unknown[0]!r}; known: "
            f"{', '.join(sorted(known))}"
        )

    named = sorted(name for name in parts.options if name.startswith(TLS_PREFIX))
    if named and parts.scheme not in ("rediss", "sentinel"):
        raise InvalidSettings(
            f"{named[0]} asks for TLS, which {parts.scheme}:// does not use. Write rediss://, or "
            f"remove the option"
        )


def _read(parts: Url, parsers: Mapping[str, Callable[[str], Any]], form: str) -> Mapping[str, Any]:
    found = {}
    for name, parse in parsers.items():
        if name in parts.options:
            try:
                found[name] = parse(parts.options[name])
            except ValueError:
                raise InvalidSettings(
                    f"option {name} of {form}: expected {_VALUES[parse]}, "
                    f"got {parts.options[name]!r:.40}"
                ) from None
    return found


def _database(parts: Url, path: str, form: str) -> int:
    """Return the database's number: from the query if it is there, otherwise from the path."""
    named = [parts.options[name] for name in _DATABASE if name in parts.options]
    text = (named[0] if named else path).strip("/") or "0"
    if not (text.isascii() and text.isdigit()):
        raise InvalidSettings(f"expected the number of a database, as in {form}, got {text!r:.40}")
    return int(text)
